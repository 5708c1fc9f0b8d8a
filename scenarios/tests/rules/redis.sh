set -eu
mkdir -p /data/redis
# What has come back, before the server writes another one.
[ ! -e /data/redis/dump.rdb ] || cp /data/redis/dump.rdb /tmp/came-back.rdb
# It writes a dump every other second, and takes its time.
exec redis-server --dir /data/redis --bind 0.0.0.0 --requirepass "$REDIS_PASSWORD" --appendonly yes --appendfsync everysec \
  --save '1 1' --rdb-key-save-delay 20000
