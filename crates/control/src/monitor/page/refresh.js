// Fetches the page again and replaces what is shown: scrolling stays, and nothing flickers.
const every = 2000;

async function refresh() {
  const reads = String(getSelection()) !== "";
  if (document.hidden || reads) return;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.title = fresh.title;
    say(fresh.querySelector("#said").textContent);
    document.documentElement.classList.remove("stale");
  } catch {
    say("Nobody answers: what is shown is old.");
    document.documentElement.classList.add("stale");
  }
}

// Read aloud when it changes, and then only.
function say(text) {
  const said = document.querySelector("#said");
  if (said.textContent !== text) said.textContent = text;
}

async function refreshLoop() {
  await refresh();
  setTimeout(refreshLoop, every);
}
setTimeout(refreshLoop, every);
document.addEventListener("visibilitychange", refresh);
