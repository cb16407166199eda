"""redis-py, blocking: the usual ways of using Redis, round after round, while the test changes masters."""

import sys
import time

import redis
from tale import Counts, Orders, Patience, expect

HOST, PORT, PROTOCOL = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ME = f"redis-py:{PROTOCOL}"
# What it watched is gone with its connection: that is told as a WatchError.
FAULTS = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.WatchError)
# One second is what a client of a planned switchover must get by with.
TIMEOUT = 1


def connect():
    return redis.Redis(
        host=HOST, port=PORT, protocol=PROTOCOL, decode_responses=True, socket_timeout=TIMEOUT, client_name="tale"
    )


def plain(client, number):
    key = f"{ME}:plain:{number}"
    client.set(key, number)
    expect(client.get(key), str(number), "a value just written")
    return [(key, str(number))]


def pipeline(client, number):
    keys = [f"{ME}:pipe:{number}:{i}" for i in range(20)]
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.set(key, number).get(key)
        expect(pipe.execute(), [True, str(number)] * len(keys), "a pipeline")
    return [(key, str(number)) for key in keys]


def transaction(client, number):
    """Optimistic locking: WATCH, read, MULTI, EXEC."""
    key = f"{ME}:transaction:{number}"

    # Not by the library's own `transaction`: it repeats one whose outcome it does not know.
    with client.pipeline() as pipe:
        pipe.watch(key)
        seen = int(pipe.get(key) or 0)
        pipe.multi()
        pipe.set(key, seen + 1)
        pipe.get(key)
        expect(pipe.execute(), [True, "1"], "a transaction")
    return [(key, "1")]


def script(client, number):
    key = f"{ME}:script:{number}"
    twice = client.register_script("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")
    expect(twice(keys=[key], args=[number]), str(number), "a script")
    return [(key, str(number))]


def queue(client, number):
    """A blocking pop that has to wait for its value, and one that finds it there."""
    key = f"{ME}:queue:{number}"
    expect(client.blpop([key], timeout=0.01), None, "an empty queue")
    client.rpush(key, number)
    expect(client.blpop([key], timeout=0.5), [key, str(number)] if PROTOCOL == 3 else (key, str(number)), "a queue")
    return []


def hear(subscription, channel, text):
    """Messages are not stored: what was said while nobody was subscribed is gone, and is said again."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        message = subscription.get_message(ignore_subscribe_messages=True, timeout=0.05)
        if message and (message["channel"], message["data"]) == (channel, text):
            return True
    return False


def publish(client, subscription, number):
    channel = f"{ME}:news"
    for _ in range(20):
        client.publish(channel, f"{number}")
        if hear(subscription, channel, f"{number}"):
            return
    raise AssertionError("a message was published twenty times and never heard")


def round_of_all(client, subscription, number):
    written = []
    for way in (plain, pipeline, transaction, script, queue):
        written += way(client, number)
    publish(client, subscription, number)
    return written


def main():
    client, counts, orders, patience = connect(), Counts(), Orders(), Patience()
    subscription = client.pubsub()
    subscription.subscribe(f"{ME}:news")
    number = 0
    while True:
        number += 1
        try:
            counts.acknowledged += round_of_all(client, subscription, number)
            counts.rounds += 1
            patience.worked()
        except FAULTS as error:
            counts.errors.append(repr(error))
            patience.failed(error)
            time.sleep(0.01)
        word = orders.take()
        if word == "report":
            counts.report()
        elif word == "stop":
            break
    lost = [key for key, value in counts.acknowledged if client.get(key) != value]
    counts.report(written=len(counts.acknowledged), lost=lost)


main()
