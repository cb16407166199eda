// node-redis: the usual ways of using Redis, round after round, while the test changes masters. It talks with the test
// as tale.py says.
"use strict";

const assert = require("node:assert");
const readline = require("node:readline");
const { createClient, commandOptions } = require("redis");

const [host, port] = process.argv.slice(2);
const me = "node-redis";
const patienceMs = 60_000;

const counts = { rounds: 0, errors: [], acknowledged: [] };
const words = [];
readline.createInterface({ input: process.stdin }).on("line", (line) => words.push(line.trim())).on("close", () => words.push("stop"));

function report(more = {}) {
  const said = { rounds: counts.rounds, errors: counts.errors.length, last: counts.errors.slice(-1), ...more };
  console.log(JSON.stringify(said));
}

async function connect() {
  const client = createClient({
    name: "tale",
    // Without a queue a command fails at once when its connection ends: the library would repeat it otherwise.
    disableOfflineQueue: true,
    socket: { host, port: Number(port), reconnectStrategy: () => 20 },
  });
  client.on("error", () => {});
  await client.connect();
  return client;
}

async function roundOfAll(client, number) {
  const key = `${me}:${number}`;
  await client.set(key, number);
  assert.equal(await client.get(key), String(number));
  // Commands of one turn go out as one pipeline.
  const keys = Array.from({ length: 20 }, (_, i) => `${key}:pipe:${i}`);
  await Promise.all(keys.map((k) => client.set(k, number)));
  assert.deepEqual(await client.multi().incr(`${key}:sum`).incr(`${key}:sum`).exec(), [1, 2]);
  const script = "return redis.call('RPUSH', KEYS[1], ARGV[1])";
  assert.equal(await client.eval(script, { keys: [`${key}:queue`], arguments: [String(number)] }), 1);
  const popped = await client.blPop(commandOptions({ isolated: true }), `${key}:queue`, 0.5);
  assert.deepEqual({ ...popped }, { key: `${key}:queue`, element: String(number) });
  return [[key, String(number)], [`${key}:sum`, "2"], ...keys.map((k) => [k, String(number)])];
}

async function heard(client, inbox, number) {
  for (let i = 0; i < 20; i++) {
    await client.publish(`${me}:news`, String(number));
    for (let j = 0; j < 20; j++) {
      if (inbox.has(String(number))) return;
      await new Promise((done) => setTimeout(done, 10));
    }
  }
  throw new assert.AssertionError({ message: "a message was published twenty times and never heard" });
}

async function main() {
  const client = await connect();
  const subscriber = await connect();
  const inbox = new Set();
  await subscriber.subscribe(`${me}:news`, (message) => inbox.add(message));
  let failingSince = null;
  for (let number = 1; ; number++) {
    try {
      const written = await roundOfAll(client, number);
      counts.acknowledged.push(...written);
      await heard(client, inbox, number);
      counts.rounds++;
      failingSince = null;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      counts.errors.push(String(error));
      failingSince ??= Date.now();
      if (Date.now() - failingSince > patienceMs) throw error;
      await new Promise((done) => setTimeout(done, 10));
    }
    const word = words.shift();
    if (word === "report") report();
    if (word === "stop") break;
  }
  const lost = [];
  for (const [key, value] of counts.acknowledged) if ((await client.get(key)) !== value) lost.push(key);
  report({ written: counts.acknowledged.length, lost });
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
