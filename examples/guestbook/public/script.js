// Lists the entries, adds one, and shows which servers answered. What visitors wrote is only ever set as text.

const EVERY_MS = 3000;
const form = document.getElementById("write");
const said = document.getElementById("said");
const fresh = document.getElementById("fresh");
const list = document.getElementById("entries");
const template = document.getElementById("entry");

// Entries by number. One that was just written stands here before the standbys have it.
const known = new Map();

function showWay(way) {
  for (const hop of document.querySelectorAll("[data-hop]")) {
    hop.textContent = way?.[hop.dataset.hop] ?? "—";
  }
}

function show(entry, isNew) {
  const item = template.content.cloneNode(true).firstElementChild;
  item.querySelector(".text").textContent = entry.text;
  item.querySelector(".author").textContent = entry.author;
  const time = item.querySelector("time");
  time.dateTime = entry.written_at;
  time.textContent = new Date(entry.written_at).toLocaleString();
  item.classList.toggle("new", isNew);
  return item;
}

function take(entries) {
  const first = known.size === 0;
  const unseen = entries.filter((entry) => !known.has(entry.id));
  if (unseen.length === 0 && !first) return;
  for (const entry of unseen) known.set(entry.id, entry);
  const newest = [...known.values()].sort((a, b) => b.id - a.id).slice(0, 50);
  const added = new Set(unseen.map((entry) => entry.id));
  list.replaceChildren(...newest.map((entry) => show(entry, !first && added.has(entry.id))));
  document.getElementById("empty").hidden = newest.length > 0;
}

async function ask(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(12000) });
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const body = isJson ? await response.json() : {};
  showWay(body.served_by);
  if (!response.ok) throw new Error(body.error ?? `the site answered ${response.status}`);
  return body;
}

function trouble(element, message) {
  element.textContent = message;
  element.classList.toggle("trouble", message !== "");
}

async function refresh() {
  try {
    take((await ask("/api/entries")).entries);
    trouble(fresh, "");
    fresh.textContent = `Asked at ${new Date().toLocaleTimeString()}.`;
  } catch (error) {
    trouble(fresh, `The entries cannot be had now: ${error.message}.`);
  }
}

async function write(event) {
  event.preventDefault();
  const button = form.querySelector("button");
  const { author, text } = Object.fromEntries(new FormData(form));
  button.disabled = true;
  trouble(said, "");
  try {
    const entry = await ask("/api/entries", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ author, text }),
    });
    take([entry]);
    form.elements.text.value = "";
    said.textContent = "Written. Thank you.";
  } catch (error) {
    trouble(said, `Not written: ${error.message}.`);
  } finally {
    button.disabled = false;
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, EVERY_MS);
}

form.addEventListener("submit", write);
keepFresh();
