"""redis-py with asyncio: several tasks share one pool of connections while the test changes masters."""

import asyncio
import sys

import redis.asyncio as redis
from redis.exceptions import ConnectionError, TimeoutError
from tale import Counts, Orders, Patience, expect

HOST, PORT, PROTOCOL = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ME = f"redis-py-asyncio:{PROTOCOL}"
TASKS = 8
# One second is what a client of a planned switchover must get by with.
TIMEOUT = 1


async def round_of_all(client, task, number):
    key = f"{ME}:{task}:{number}"
    await client.set(key, number)
    expect(await client.get(key), str(number), "a value just written")
    async with client.pipeline(transaction=True) as pipe:
        got = await pipe.incr(f"{key}:sum").incr(f"{key}:sum").execute()
    expect(got, [1, 2], "a transaction")
    got = await client.eval("return redis.call('RPUSH', KEYS[1], ARGV[1])", 1, f"{key}:queue", number)
    expect(got, 1, "a script")
    popped = await client.blpop([f"{key}:queue"], timeout=0.5)
    expect(list(popped or []), [f"{key}:queue", str(number)], "a queue")
    return [(key, str(number)), (f"{key}:sum", "2")]


async def work(client, task, counts, stop):
    number, patience = 0, Patience()
    while not stop.is_set():
        number += 1
        try:
            counts.acknowledged += await round_of_all(client, task, number)
            counts.rounds += 1
            patience.worked()
        except (ConnectionError, TimeoutError, asyncio.TimeoutError) as error:
            counts.errors.append(repr(error))
            patience.failed(error)
            await asyncio.sleep(0.01)


async def obey(counts, orders, stop, tasks):
    while not any(task.done() for task in tasks):
        word = orders.take()
        if word == "report":
            counts.report()
        elif word == "stop":
            break
        await asyncio.sleep(0.01)
    stop.set()


async def main():
    client = redis.Redis(
        host=HOST, port=PORT, protocol=PROTOCOL, decode_responses=True, socket_timeout=TIMEOUT, client_name="tale"
    )
    counts, orders, stop = Counts(), Orders(), asyncio.Event()
    tasks = [asyncio.create_task(work(client, task, counts, stop)) for task in range(TASKS)]
    await obey(counts, orders, stop, tasks)
    await asyncio.gather(*tasks)
    lost = [key for key, value in counts.acknowledged if await client.get(key) != value]
    counts.report(written=len(counts.acknowledged), lost=lost)
    await client.aclose()


asyncio.run(main())
