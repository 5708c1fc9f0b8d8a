set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/password
  initdb -U "$POSTGRES_USER" --auth-local=scram-sha-256 --auth-host=scram-sha-256 --pwfile=/tmp/password --no-locale -E UTF8
  printf "host all all all scram-sha-256\n" >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c jit=off
