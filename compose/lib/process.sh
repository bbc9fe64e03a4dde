# shellcheck shell=bash disable=SC2154  # `state` is the caller's
# Processes that outlive the script, known by pid and start time. Sourced by compose/native.

# /proc's start time tells a process from a later one with the same pid (proc_pid_stat(5); behind the name: 1 state,
# 18 threads, 20 start time). A zombie, dead but not yet waited for, has none, unless threads of it still end:
# a killed JVM keeps its port that long.
started_at() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | awk '!($1 ~ /[ZX]/ && $18 <= 1) { print $20 }'; }

remember() { # NAME PID
  echo "$2 $(started_at "$2")" >"$state/run/$1.pid"
}

is_running() { # NAME
  local pid start
  [ -s "$state/run/$1.pid" ] || return 1
  read -r pid start <"$state/run/$1.pid"
  [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ]
}

# killed, but threads of it still end
is_dying() { # NAME
  local pid
  read -r pid _ <"$state/run/$1.pid" && is_running "$1" && grep -qs '^State:.[ZX]' "/proc/$pid/status"
}

launch() { # NAME COMMAND…: detached, its output in log/NAME.log
  local name=$1
  shift
  setsid "$@" >>"$state/log/$name.log" 2>&1 </dev/null 9>&- &
  remember "$name" $!
  disown
}

end_process() { # NAME [SIGNAL]
  local pid
  is_running "$1" || { rm -f "$state/run/$1.pid"; return 0; }
  read -r pid _ <"$state/run/$1.pid"
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  wait_until 20 "$1 to end" not_running "$1" || {
    kill -KILL "$pid" 2>/dev/null || true
    # its port and its locks are free only when it is gone
    wait_until 10 "$1 to be killed" not_running "$1" || true
  }
  rm -f "$state/run/$1.pid"
}

not_running() { ! is_running "$1"; }

wait_until() { # SECONDS WHAT COMMAND…
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -ge $deadline ] && { say "waited in vain for $what"; return 1; }
    sleep 0.1
  done
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# An open port proves nothing: it may be another program's, and ours about to die of it. So the listening socket
# has to be one of our process (/proc/net/tcp: column 2 is address:port in hex, 4 the state with 0A for listening,
# 10 the inode. Source: proc_pid_net(5), read 2026-11).
listens() { # NAME PORT
  local pid inode hex
  read -r pid _ <"$state/run/$1.pid" || return 1
  printf -v hex ':%04X' "$2"
  # shellcheck disable=SC2013  # a word is a line here
  for inode in $(awk -v port="$hex" '$4 == "0A" && $2 ~ port "$" { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null); do
    [ -n "$(find "/proc/$pid/fd" -lname "socket:\\[$inode\\]" -print -quit 2>/dev/null)" ] && return
  done
  return 1
}

listens_or_ended() { listens "$@" || not_running "$1"; }

# Ends at once, not at the deadline, where the process has died.
wait_for_server() { # SECONDS NAME PORT
  wait_until "$1" "$2 on port $3" listens_or_ended "$2" "$3" && is_running "$2"
}

free_port() {
  local port
  while :; do
    # below the range from which the kernel takes ports of outgoing connections
    port=$((10000 + (RANDOM * 32768 + RANDOM) % 20000))
    grep -qsx "$port" "$state"/run/ports && continue
    port_open "$port" || { echo "$port" >>"$state/run/ports"; echo "$port"; return; }
  done
}
