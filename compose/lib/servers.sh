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
  wait_until 60 "Kafka on port $kafka_port" port_open "$kafka_port" || fail_with_log kafka
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
  wait_until 30 "the $name gateway on port $port" port_open "$port" || fail_with_log "$name"
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

start_postgres() {
  local bin
  bin=$(postgres_bin)
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
    "${psql[@]}" -c "CREATE ROLE sluice LOGIN CREATEDB PASSWORD '$password'"
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
  case $1 in kafka | raw | lake | postgres) is_running "$1" || "start_$1" ;; *) die "no server $1" ;; esac
}

stop_server() {
  case $1 in kafka | raw | lake) end_process "$1" ;; postgres) stop_postgres ;; *) die "no server $1" ;; esac
}

choose_ports() {
  rm -f "$state/run/ports"
  kafka_port=$(free_port) kafka_controller_port=$(free_port) raw_port=$(free_port) postgres_port=$(free_port)
  if [ -n "$single_gateway" ]; then lake_port=$raw_port; else lake_port=$(free_port); fi
  postgres_data="$state/postgres"
  # the package's user must reach its data: not so below a private home
  if [ "$(id -u)" = 0 ] && ! (cd / && runuser -u postgres -- test -x "$state"); then
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

stack_up() {
  install_all
  mkdir -p "$state"/{run,log,kafka,raw/objects,raw/versions,lake/objects,lake/versions}
  if [ -s "$state/ports.env" ]; then . "$state/ports.env"; else choose_ports; fi
  # JVM and database start side by side
  start_server kafka & local kafka_start=$!
  start_server postgres
  wait $kafka_start || die "Kafka did not start"
  kafka_tool topics --create --if-not-exists --topic raw-notifications --partitions 8 --replication-factor 1 >/dev/null
  start_server raw
  start_server lake
  write_settings
  say "up: $state/settings.env"
}

stack_down() {
  [ -s "$state/ports.env" ] || { say "nothing to stop in $state"; return; }
  . "$state/ports.env"
  for server in raw lake kafka postgres; do stop_server "$server"; done
  say "down: $state"
}

stack_status() {
  local server
  for server in kafka postgres raw lake; do
    if is_running "$server"; then echo "$server: running"; else echo "$server: not running"; fi
  done
}
