# Processes that outlive the script, known by pid and start time. Sourced by compose/native.

# /proc's start time tells a process from a later one with the same pid
started_at() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

remember() { # NAME PID
  echo "$2 $(started_at "$2")" >"$state/run/$1.pid"
}

is_running() { # NAME
  local pid start
  [ -s "$state/run/$1.pid" ] || return 1
  read -r pid start <"$state/run/$1.pid"
  [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ]
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
  wait_until 20 "$1 to end" not_running "$1" || kill -KILL "$pid" 2>/dev/null || true
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

free_port() {
  local port
  while :; do
    # below the range from which the kernel takes ports of outgoing connections
    port=$((10000 + (RANDOM * 32768 + RANDOM) % 20000))
    grep -qsx "$port" "$state"/run/ports && continue
    port_open "$port" || { echo "$port" >>"$state/run/ports"; echo "$port"; return; }
  done
}
