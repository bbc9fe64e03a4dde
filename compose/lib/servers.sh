# shellcheck shell=bash disable=SC1091,SC2154  # what the other files set, and a file that `up` writes
# The servers: what each is told, when it is up, how it ends. Sourced by compose/native.

access_key=sluice
secret_key=sluice-secret
region=us-east-1
password=sluice

stack_known() { [ -s "$state/ports.env" ] || die "no stack in $state: start one with \`compose/native up\`"; . "$state/ports.env"; }

fail_with_log() { # NAME
  say "--- $state/log/$1.log"
  tail -n 25 "$state/log/$1.log" >&2
  die "$1 did not start"
}

# --- kafka

# the tools' logger finds no backend, which is fine, and says so
kafka_java() { java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_home/libs/*" "$@" 2> >(grep -v '^SLF4J' >&2); }

kafka_configure() {
  cat >"$state/kafka/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$kafka_controller_port
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$kafka_controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$state/kafka/data
auto.create.topics.enable=false
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
log.initial.task.delay.ms=500
PROPERTIES
  [ -e "$state/kafka/data/meta.properties" ] ||
    kafka_java kafka.tools.StorageTool format -t "$(kafka_java kafka.tools.StorageTool random-uuid 2>/dev/null)" \
      -c "$state/kafka/server.properties" >>"$state/log/kafka.log" 2>&1 || fail_with_log kafka
}

start_kafka() {
  kafka_configure
  launch kafka java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_home/libs/*" \
    kafka.Kafka "$state/kafka/server.properties"
  wait_for_server 60 kafka "$kafka_port" || fail_with_log kafka
}

kafka_tool() {
  local tool=${1:-}
  [ $# -gt 0 ] && shift
  local class
  case $tool in
    topics) class=org.apache.kafka.tools.TopicCommand ;;
    groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    configs) class=kafka.admin.ConfigCommand ;;
    console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    console-producer) class=org.apache.kafka.tools.ConsoleProducer ;;
    delete-records) class=org.apache.kafka.tools.DeleteRecordsCommand ;;
    *) die "kafka knows topics, groups, configs, console-consumer, console-producer and delete-records" ;;
  esac
  kafka_java "$class" --bootstrap-server "127.0.0.1:$kafka_port" "$@"
}

# --- versitygw

# versitygw wants the body's hash as a signed header, which curl signs but does not compute
s3_put() { # PORT PATH [BODY]
  local hash
  hash=$(printf %s "${3:-}" | sha256sum | cut -d' ' -f1)
  curl -s --max-time 10 --aws-sigv4 "aws:amz:$region:s3" --user "$access_key:$secret_key" \
    -H "x-amz-content-sha256: $hash" -X PUT --data-binary "${3:-}" -o /dev/null -w '%{http_code}' \
    "http://127.0.0.1:$1$2"
}

make_bucket() { # PORT NAME
  case $(s3_put "$1" "/$2") in
    200 | 409) ;;
    *) die "could not create bucket $2: see $state/log" ;;
  esac
}

start_gateway() { # NAME PORT GLOBAL-ARGS…
  local name=$1 port=$2
  shift 2
  launch "$name" "$versitygw" --port "127.0.0.1:$port" --access "$access_key" --secret "$secret_key" \
    --region "$region" --keep-alive "$@" posix --versioning-dir "$state/$name/versions" "$state/$name/objects"
  wait_for_server 30 "$name" "$port" || fail_with_log "$name"
}

start_raw() {
  start_gateway raw "$raw_port" --event-kafka-url "127.0.0.1:$kafka_port" --event-kafka-topic raw-notifications
  make_bucket "$raw_port" raw
  make_bucket "$raw_port" raw-versioned
  local versioning='<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>'
  [ "$(s3_put "$raw_port" '/raw-versioned?versioning=' "$versioning")" = 200 ] || die "could not enable versioning"
  if [ "$lake_port" = "$raw_port" ]; then make_bucket "$raw_port" lake; fi
}

start_lake() {
  [ "$lake_port" = "$raw_port" ] && return
  start_gateway lake "$lake_port"
  make_bucket "$lake_port" lake
}

# --- PostgreSQL: refuses root, so root lends its cluster to the user of Debian's package

as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

# Every process of a cluster has its data folder as its working directory (PostgreSQL's SwitchToDataDir).
cluster_is_empty() { [ -z "$(find /proc -maxdepth 2 -name cwd -lname "$(cd "$postgres_data" && pwd -P)" 2>/dev/null)" ]; }

# After kill -9 the pid in postmaster.pid may still exist, as a zombie that nobody has waited for (in containers for
# ever) or as another program's, and PostgreSQL then refuses to start.
forget_killed_postmaster() {
  [ -e "$postgres_data/postmaster.pid" ] || return 0
  if wait_until 20 "processes of a killed PostgreSQL to end" cluster_is_empty; then rm -f "$postgres_data/postmaster.pid"; fi
}

start_postgres() {
  local bin
  bin=$(postgres_bin)
  forget_killed_postmaster
  if [ ! -e "$postgres_data/PG_VERSION" ]; then
    mkdir -p "$postgres_data"
    chmod 700 "$postgres_data"
    if [ "$(id -u)" = 0 ]; then chown -R postgres "$postgres_data"; fi
    (cd / && as_postgres "$bin/initdb" -D "$postgres_data" -U postgres -A trust -E UTF8 --locale=C.UTF-8) >>"$state/log/postgres.log" 2>&1 || fail_with_log postgres
  fi
  (cd / && as_postgres "$bin/pg_ctl" -D "$postgres_data" -s -w -t 60 -l "$postgres_data/server.log" \
    -o "-p $postgres_port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c shared_buffers=128MB" start) >>"$state/log/postgres.log" 2>&1 9>&- ||
    { cat "$postgres_data/server.log" >>"$state/log/postgres.log" 2>/dev/null; fail_with_log postgres; }
  remember postgres "$(head -n 1 "$postgres_data/postmaster.pid")"
  local psql=("$bin/psql" -h 127.0.0.1 -p "$postgres_port" -U postgres -qAt)
  if [ -z "$("${psql[@]}" -c "SELECT 1 FROM pg_roles WHERE rolname = 'sluice'")" ]; then
    "${psql[@]}" -c "CREATE ROLE sluice LOGIN CREATEDB CREATEROLE PASSWORD '$password'"
    for database in sluice_catalog sluice_warehouse; do "${psql[@]}" -c "CREATE DATABASE $database OWNER sluice"; done
  fi
}

stop_postgres() {
  is_running postgres || return 0
  (cd / && as_postgres "$(postgres_bin)/pg_ctl" -D "$postgres_data" -s -m fast -t 30 stop) || end_process postgres INT
  rm -f "$state/run/postgres.pid"
}

# --- all of them

start_server() {
  case $1 in kafka | raw | lake | postgres) ;; *) die "no server $1" ;; esac
  if [ -s "$state/run/$1.pid" ] && is_dying "$1"; then wait_until 20 "the killed $1 to end" not_running "$1" || true; fi
  is_running "$1" || "start_$1"
}

stop_server() {
  case $1 in kafka | raw | lake) end_process "$1" ;; postgres) stop_postgres ;; *) die "no server $1" ;; esac
}

choose_ports() {
  # chosen again, where a port was taken: the stack stays of the same kind
  if [ -n "${raw_port:-}" ] && [ "$raw_port" = "${lake_port:-}" ]; then single_gateway=1; fi
  rm -f "$state/run/ports"
  kafka_port=$(free_port) kafka_controller_port=$(free_port) raw_port=$(free_port) postgres_port=$(free_port)
  if [ -n "$single_gateway" ]; then lake_port=$raw_port; else lake_port=$(free_port); fi
  postgres_data=${postgres_data:-$state/postgres}
  # the package's user must reach its data: not so below a private home
  if [ "$(id -u)" = 0 ] && [ "$postgres_data" = "$state/postgres" ] && ! (cd / && runuser -u postgres -- test -x "$state"); then
    postgres_data=$(mktemp -d /tmp/sluice-postgres.XXXXXX)
    chmod 755 "$postgres_data"
    postgres_data="$postgres_data/data"
  fi
  cat >"$state/ports.env" <<PORTS
kafka_port=$kafka_port kafka_controller_port=$kafka_controller_port raw_port=$raw_port
lake_port=$lake_port postgres_port=$postgres_port postgres_data=$postgres_data
PORTS
}

write_settings() {
  local dsn="postgres://sluice:$password@127.0.0.1:$postgres_port"
  cat >"$state/settings.env" <<SETTINGS
export SLUICE_KAFKA__BROKERS=127.0.0.1:$kafka_port
export SLUICE_S3__RAW__ENDPOINT=http://127.0.0.1:$raw_port
export SLUICE_S3__RAW__REGION=$region
export SLUICE_S3__RAW__ACCESS_KEY_ID=$access_key
export SLUICE_S3__RAW__SECRET_ACCESS_KEY=$secret_key
export SLUICE_S3__LAKE__ENDPOINT=http://127.0.0.1:$lake_port
export SLUICE_S3__LAKE__REGION=$region
export SLUICE_S3__LAKE__ACCESS_KEY_ID=$access_key
export SLUICE_S3__LAKE__SECRET_ACCESS_KEY=$secret_key
export SLUICE_S3__LAKE_BUCKET=lake
export SLUICE_CATALOG__DSN=$dsn/sluice_catalog
export SLUICE_WAREHOUSE__DSN=$dsn/sluice_warehouse
export SLUICE_RAW_BUCKET=raw
export SLUICE_KAFKA_HOME=$kafka_home
export SLUICE_PG_BIN=$(postgres_bin)
SETTINGS
}

# servers of this stack, one a line, with their ports
servers() {
  echo "kafka $kafka_port"
  echo "postgres $postgres_port"
  echo "raw $raw_port"
  if [ "$lake_port" != "$raw_port" ]; then echo "lake $lake_port"; fi
}

all_running() {
  local server
  while read -r server _; do is_running "$server" && ! is_dying "$server" || return 1; done < <(servers)
}

# a port of ours that another program listens on
foreign_port() {
  local server port
  while read -r server port; do
    if ! is_running "$server" && port_open "$port"; then echo "$port"; return; fi
  done < <(servers; echo "kafka $kafka_controller_port")
  return 1
}

no_foreign_port() { ! foreign_port; }

start_all() {
  # JVM and database start side by side
  start_server kafka & local kafka_start=$!
  start_server postgres & local postgres_start=$!
  local failed=
  # both to their end: what is stopped after a failure must be known by its pid
  wait $kafka_start || failed=1
  wait $postgres_start || failed=1
  [ -z "$failed" ] || return 1
  kafka_tool topics --create --if-not-exists --topic raw-notifications --partitions 8 --replication-factor 1 >/dev/null
  start_server raw
  start_server lake
}

stack_up() {
  install_all
  mkdir -p "$state"/{run,log,kafka,raw/objects,raw/versions,lake/objects,lake/versions}
  # two `up`s at once: the second finds it running
  exec 9>"$state/run/lock"
  flock 9
  if [ -s "$state/ports.env" ]; then . "$state/ports.env"; else choose_ports; fi
  if [ -s "$state/settings.env" ] && all_running; then say "already up: $state/settings.env"; return; fi
  local attempt status
  for attempt in 1 2 3; do
    # after a crash the ports stay: what is left of the killed processes gets the time to end
    if ! wait_until 5 "our ports to be free" no_foreign_port; then
      say "a port is taken: choosing others"
      # also those that run: each is told its port when it starts
      stop_all
      choose_ports
    fi
    # a subshell of its own and not an `if`, which would switch `set -e` off inside
    set +e
    (set -e; start_all)
    status=$?
    set -e
    if [ $status = 0 ]; then write_settings; say "up: $state/settings.env"; return; fi
    stop_all
    foreign_port >/dev/null || break
    say "attempt $attempt lost a port to another program"
  done
  die "the stack did not start, and nothing of it is left running; its logs are in $state/log"
}

stop_all() {
  local server
  for server in raw lake kafka postgres; do stop_server "$server"; done
}

stack_down() {
  [ -s "$state/ports.env" ] || { say "nothing to stop in $state"; return; }
  . "$state/ports.env"
  stop_all
  say "down: $state"
}

stack_status() {
  local server port
  stack_known
  while read -r server port; do
    if is_running "$server"; then echo "$server: running on port $port"; else echo "$server: not running"; fi
  done < <(servers)
}
