/**
 * Writes batch after batch into the DuckDB file that it is given, and says on a line of its own which one was taken or
 * refused: the process that the tests of the embedded store kill, and whose disk they fill.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { messageOf, StoreError } from '../shared/errors.js';
import { createLog } from '../shared/log.js';
import type { RequestEvent } from '../shared/request-event.js';
import { BatchAggregates } from '../shared/rollup/rollup-aggregator.js';
import { openStore } from '../shared/store/open.js';
import type { Batch } from '../shared/store/store.js';
import { emptyRequest } from './empty-request.js';

/** Ahead of every clock: rows of fine windows are deleted after two days. */
const startMs = Date.UTC(2099, 10, 23);
const requestsPerBatch = 500;

/** So long that no test sees rows go. */
const retentionMs = 3650 * 86_400_000;

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeOn(process.argv[2]!);

/**
 * Batch `sequence` of one writer: its requests with what they add to the rollups, and a ledger that counts all requests
 * up to this one.
 */
export function duckdbBatch(sequence: number): Batch & { readonly requestsPerBatch: number } {
  const requests = Array.from(
    { length: requestsPerBatch },
    (_, index): RequestEvent => ({
      ...emptyRequest,
      source: 'caddy',
      timeMs: startMs + sequence,
      timeNs: index,
      host: 'shop.example',
      method: 'GET',
      status: 200,
      durationMs: index,
      size: index,
      uri: `/${sequence}/${Math.random()}`,
    }),
  );
  const counted = new BatchAggregates(() => startMs);
  for (const request of requests) counted.add(request);
  const ledger = {
    collector: 'duckdb-writer',
    timeMs: startMs + sequence,
    received: sequence * requestsPerBatch,
    accepted: sequence * requestsPerBatch,
    runtime: 0,
    events: 0,
    rejected: {},
    dropped: {},
    stored: sequence * requestsPerBatch,
    spooled: 0,
    inMemory: 0,
    deadLettered: 0,
    warnings: {},
    lastLineMs: startMs,
  };
  return {
    recorder: 'test',
    writer: 'duckdb-writer',
    sequence,
    requests,
    aggregates: counted.take(),
    rollups: [],
    topLists: [],
    ledger,
    requestsPerBatch,
  };
}

async function writeOn(path: string): Promise<never> {
  const store = await openStore(
    { kind: 'duckdb', path, retention: { requestsMs: retentionMs, rollupsMs: retentionMs } },
    { log: createLog('store') },
  );
  for (let sequence = 1; ; ) {
    try {
      await store.write(duckdbBatch(sequence));
      process.stdout.write(`taken ${sequence}\n`);
      sequence += 1;
    } catch (error) {
      process.stdout.write(
        `refused ${sequence} ${error instanceof StoreError ? error.action : 'unknown'} ${messageOf(error)}\n`,
      );
      await sleep(20);
    }
  }
}
