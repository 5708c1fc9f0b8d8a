//! What runs inside a container for an action: a few lines of shell, written for any POSIX `sh`.
//!
//! An operator may die at any time, and what holds a lock in a database must not wait for one to come back. So a command does not hang on a connection: it is
//! started beside a *guard*, a shell in the container that ends it when it takes too long, when it is let go, or when nobody has looked after it for a
//! while. All that there is to know about it lies in a directory of the container, so any operator can go on with it.
//!
//! ```text
//!   start ─► directory ─► guard ─► command ──► code, out
//!                           │        └ ${WAIT_CMD} ─► holding … release ─► goes on
//!                           └ timeout, or no beat: over ─► TERM ─► KILL
//!   look:    beat; says what is there          release: says that the data is taken
//! ```
//! What waits looks after its guard in turn: a command that stops every process of its container stops the guard too, and must not hold for ever either.
//!
//! The directory is in memory where a container has that (`/dev/shm`), since its own file system may be read-only. A guard removes it itself, a while after the
//! end, and all at once for whoever looks: under another name first.

use std::time::Duration;

use crate::config::HookLimits;

/// Finds the directory of the task `$1`; leaves `d` empty if there is none.
const FIND: &str = r#"for b in /dev/shm /tmp /var/tmp /run; do d=$b/.orlop-$1; [ -d "$d" ] && break; d=; done"#;

/// Makes the directory and starts the guard, unless another has. `$2` is the command, `$3` its time, `$4` how long it stays without being looked after,
/// `$5` how long it may take to end when it is let go, `$6` whether it runs in the background.
const START: &str = r#"
fresh= waits=
if [ -z "$d" ]; then
  for b in /dev/shm /tmp /var/tmp /run; do
    d=$b/.orlop-$1
    if (umask 077; mkdir "$d") 2>/dev/null; then fresh=1; break; fi
    [ -d "$d" ] && break
    d=
  done
fi
[ -n "$d" ] || { echo "unable no directory can be written: one of /dev/shm, /tmp, /var/tmp and /run is needed"; exit 0; }
if [ -n "$fresh" ]; then
  command=$2
  w="sh $d/wait"
  p='${WAIT_CMD}'
  while :; do case $command in *"$p"*) waits=1; command=${command%%"$p"*}$w${command#*"$p"};; *) break;; esac; done
  (umask 077; printf '%s' "$command" > "$d/command")
  echo "lease=$(($4 * 5))" > "$d/wait"
  cat >> "$d/wait" <<'END'
d=${0%/wait} alone=0
: > "$d/holding"
while [ ! -e "$d/release" ] && [ ! -e "$d/over" ] && [ "$alone" -lt "$lease" ]; do
  if [ -e "$d/tick" ]; then rm -f "$d/tick"; alone=0; else alone=$((alone + 1)); fi
  sleep 0.2 2>/dev/null || sleep 1
done
END
  cat > "$d/main" <<'END'
d=$1
{
  apart=
  command -v setsid >/dev/null 2>&1 && apart=setsid
  $apart sh -c "$(cat "$d/command")" </dev/null 2>&1 &
  echo $! > "$d/pid"
  wait $!
  echo $? > "$d/ended"
  mv "$d/ended" "$d/code"
} 2>/dev/null | {
  head -c 2048 > "$d/out"
  : > "$d/drained"
  cat > /dev/null
}
END
  cat > "$d/guard" <<'END'
d=$1 time=$2 lease=$3 grace=$4 background=$5 waits=$6
sh "$d/main" "$d" &
tell() {
  pid=$(cat "$d/pid" 2>/dev/null)
  [ -n "$pid" ] && { kill -s "$1" -- "-$pid" || kill -s "$1" "$pid"; } 2>/dev/null
}
[ -n "$background" ] && [ -z "$waits" ] && : > "$d/holding"
age=0 alone=0 end= left=0
while [ ! -e "$d/code" ]; do
  sleep 1
  : > "$d/tick"
  age=$((age + 1)) alone=$((alone + 1))
  [ -e "$d/beat" ] && { rm -f "$d/beat"; alone=0; }
  if [ -z "$end" ]; then
    if [ -e "$d/release" ]; then end=stopped
    elif [ "$age" -ge "$time" ]; then end=timeout
    elif [ "$alone" -ge "$lease" ]; then end=abandoned
    else continue; fi
    : > "$d/over"
    if [ -n "$waits" ] && [ -e "$d/holding" ]; then
      [ "$end" = stopped ] && end=released
      left=$((grace + 6))
    else
      left=6
    fi
    [ "$end" = released ] || echo "$end" > "$d/how"
  fi
  left=$((left - 1))
  if [ "$left" -eq 5 ]; then
    [ "$end" = released ] && echo killed > "$d/how"
    tell TERM
  elif [ "$left" -le 0 ]; then
    tell KILL
  fi
done
left=300
while [ "$left" -gt 0 ] && [ ! -e "$d/forget" ]; do sleep 1; left=$((left - 1)); done
mv "$d" "$d.gone" && rm -rf "$d.gone"
END
  chmod 755 "$d/wait"
  chmod 777 "$d"
  sh "$d/guard" "$d" "$3" "$4" "$5" "$6" "$waits" </dev/null >/dev/null 2>&1 &
  : > "$d/begun"
  n=0
  while [ ! -e "$d/code" ] && [ ! -e "$d/holding" ] && [ "$n" -lt 20 ]; do sleep 0.1 2>/dev/null || { sleep 1; n=20; }; n=$((n + 1)); done
fi
"#;

/// Says in one line what is there, and shows that somebody looks after it; then the begin of what the command wrote.
const LOOK: &str = r#"
code=
[ -n "$d" ] && code=$(cat "$d/code" 2>/dev/null)
if [ -z "$d" ]; then echo none
elif [ -n "$code" ]; then
  [ -e "$d/drained" ] || sleep 1
  how=$(cat "$d/how" 2>/dev/null)
  echo "ended $code ${how:-done}"
  cat "$d/out" 2>/dev/null
elif [ ! -e "$d/begun" ]; then echo none
else
  : > "$d/beat"
  if [ -e "$d/holding" ]; then echo holding; else echo running; fi
fi
exit 0
"#;

const RELEASE: &str = r#"
[ -n "$d" ] && : > "$d/release"
n=0
while [ -n "$d" ] && [ ! -e "$d/code" ] && [ "$n" -lt 20 ]; do sleep 0.1 2>/dev/null || { sleep 1; n=20; }; n=$((n + 1)); done
"#;

const FORGET: &str = r#"
[ -n "$d" ] && : > "$d/forget"
exit 0
"#;

/// A command that is started.
pub(crate) struct Task<'a> {
    /// Its name: the same for whoever starts it again.
    pub key: &'a str,
    /// What `sh -c` runs.
    pub command: &'a str,
    /// How long it may take, or hold.
    pub time_limit: Duration,
    /// Whether it goes on until it is let go.
    pub background: bool,
}

/// What is known of a command, as its container tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// There is none of that name.
    Nothing,
    /// It runs.
    Running,
    /// It runs, and holds what it is to hold.
    Holding,
    /// It has ended.
    Ended(How, String),
    /// It cannot be started in this container.
    Unable(String),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By itself, with this code.
    Code(i32),
    /// It was let go, and had nothing else to do.
    Stopped,
    /// It was let go, and did not end in the time that it had.
    Killed,
    /// Its time was over.
    TimedOut,
    /// Nobody looked after it.
    Abandoned,
}

fn argv(script: &str, arguments: &[&str]) -> Vec<String> {
    let mut argv = vec!["sh".to_owned(), "-c".to_owned(), format!("{FIND}\n{script}"), "orlop".to_owned()];
    argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    argv
}

/// Starts a command, if it was not started before, and looks at it.
pub(crate) fn start(task: &Task<'_>, limits: &HookLimits) -> Vec<String> {
    let seconds = |duration: Duration| duration.as_secs().max(1).to_string();
    let (time, lease, grace) = (seconds(task.time_limit), seconds(limits.lease), seconds(limits.grace));
    let background = if task.background { "1" } else { "" };
    argv(&format!("{START}{LOOK}"), &[task.key, task.command, &time, &lease, &grace, background])
}

/// Looks at a command, which shows it that somebody is there.
pub(crate) fn look(key: &str) -> Vec<String> {
    argv(LOOK, &[key])
}

/// Lets a command go, and looks at it.
pub(crate) fn release(key: &str) -> Vec<String> {
    argv(&format!("{RELEASE}{LOOK}"), &[key])
}

/// Removes what is left of a command that has ended.
pub(crate) fn forget(key: &str) -> Vec<String> {
    argv(FORGET, &[key])
}

/// Reads what a container tells; nothing if it is not what the scripts say.
pub(crate) fn read(output: &str) -> Option<Told> {
    let (first, rest) = output.split_once('\n')?;
    Some(match first.split_once(' ').unwrap_or((first, "")) {
        ("none", "") => Told::Nothing,
        ("running", "") => Told::Running,
        ("holding", "") => Told::Holding,
        ("unable", why) => Told::Unable(why.to_owned()),
        ("ended", how) => {
            let (code, how) = how.split_once(' ')?;
            let how = match how {
                "done" => How::Code(code.parse().ok()?),
                "stopped" => How::Stopped,
                "killed" => How::Killed,
                "timeout" => How::TimedOut,
                "abandoned" => How::Abandoned,
                _ => return None,
            };
            Told::Ended(how, rest.trim_end().to_owned())
        }
        _ => return None,
    })
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
