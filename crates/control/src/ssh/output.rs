//! Running a process of `ssh` to its end.

use super::error::Problem;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The most that is read of a command's output.
const LARGEST: u64 = 16 << 20;
/// How much longer than the process its standard error is read: a master that older versions of `ssh` leave behind holds it open.
const GRACE: Duration = Duration::from_millis(300);
/// The lines that an error message has of a command's output.
const LINES: usize = 5;

/// A process that ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None`: a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
}

impl Ended {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The end of what it wrote on standard error, or else on standard output, in one line.
    pub(super) fn last_lines(&self) -> String {
        let errors = last_lines(&String::from_utf8_lossy(&self.errors));
        if errors.is_empty() {
            last_lines(&self.text())
        } else {
            errors
        }
    }

    pub(super) fn succeeded(self) -> Result<Self, Problem> {
        match self.code {
            Some(0) => Ok(self),
            code => {
                let errors = String::from_utf8_lossy(&self.errors);
                Err(
                    Problem::of(code, &errors).unwrap_or_else(|| Problem::Failed {
                        code,
                        said: self.last_lines(),
                    }),
                )
            }
        }
    }
}

fn last_lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

/// Runs a command to its end; where that takes longer than `limit`, it is killed.
pub(super) async fn collect(
    mut command: Command,
    input: &[u8],
    limit: Duration,
) -> Result<Ended, Problem> {
    let stdin = if input.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    };
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| Problem::NoSsh(error.to_string()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let whole = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // Whoever does not read to the end says why by its exit code.
                let _ = stdin.write_all(input).await;
            }
        };
        let run = async {
            tokio::join!(write, read(stdout, &mut output));
            child.wait().await
        };
        let mut run = pin!(run);
        let mut listen = pin!(read(stderr, &mut errors));
        tokio::select! {
            ended = &mut run => {
                let _ = tokio::time::timeout(GRACE, listen).await;
                ended
            }
            () = &mut listen => run.await,
        }
    };
    let ended = tokio::time::timeout(limit, whole).await;
    let status = ended
        .map_err(|_| Problem::Timeout(limit))?
        .map_err(|error| Problem::NoSsh(error.to_string()))?;
    Ok(Ended {
        code: status.code(),
        output,
        errors,
    })
}

async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(from) = from {
        // What could not be read is missing in the answer, which is then not what was asked for.
        let _ = from.take(LARGEST).read_to_end(into).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn run(script: &str, input: &[u8], limit: Duration) -> Result<Ended, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(collect(shell(script), input, limit))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn input_and_output_may_be_larger_than_a_pipe() {
        let input = vec![b'x'; 1 << 20];
        let ended = run("cat; echo done >&2", &input, LONG).unwrap();
        assert_eq!(ended.output, input);
        assert_eq!(ended.last_lines(), "done");
    }

    #[test]
    fn a_command_that_reads_nothing_is_judged_by_its_exit_code() {
        let ended = run("exit 3", &vec![0; 1 << 20], LONG).unwrap();
        assert_eq!(ended.code, Some(3));
        let failed = run("echo one; echo why >&2; exit 3", &[], LONG)
            .and_then(Ended::succeeded)
            .unwrap_err();
        let said = "why".to_string();
        assert_eq!(
            failed,
            Problem::Failed {
                code: Some(3),
                said
            }
        );
    }

    #[test]
    fn a_process_that_leaves_another_with_its_standard_error_is_not_waited_for() {
        let begun = std::time::Instant::now();
        let ended = run("sleep 20 >/dev/null & echo late >&2", &[], LONG).unwrap();
        assert_eq!(ended.last_lines(), "late");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let limit = Duration::from_millis(50);
        assert_eq!(
            run("exec sleep 20", &[], limit).unwrap_err(),
            Problem::Timeout(limit)
        );
    }
}
