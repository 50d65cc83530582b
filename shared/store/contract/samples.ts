import { randomUUID } from 'node:crypto';
import type { RequestEvent } from '../../request-event.js';
import { BatchAggregates, OpenRollups } from '../../rollup/rollup-aggregator.js';
import type { Series } from '../../rollup/rollup.js';
import type { TopRow } from '../../top-list/top-row.js';
import type { Batch, LedgerSnapshot } from '../store.js';

/** Midnight of an autumn day, where windows of every level start. In milliseconds since 1970, like all times here. */
export const dayMs = Date.UTC(2026, 10, 23);
/** 20:00 of that day. */
export const hourMs = Date.UTC(2026, 10, 23, 20);
/** The hours before and after it. */
export const aroundHour = { fromMs: hourMs - 3_600_000, toMs: hourMs + 3_600_000 };
/** The series of `request()`. */
export const series: Series = { source: 'caddy', host: 'shop.example', method: 'GET', status: 200 };

/** A request at `hourMs`, with every field set. */
export function request(part: Partial<RequestEvent> = {}): RequestEvent {
  return {
    ...series,
    timeMs: hourMs,
    timeNs: 0,
    durationMs: 6.3125,
    size: 1234,
    bytesRead: 56,
    uri: '/path?query=1',
    endpoint: '',
    clientIp: '192.0.2.0',
    userAgent: 'Mozilla/5.0 (X11; Linux x86_64)',
    referrer: 'https://example.org/',
    protocol: 'HTTP/2.0',
    tls: 'TLS 1.3',
    upstreamMs: 4.25,
    error: 'dial tcp 10.0.0.3:8080: connect: connection refused',
    errorId: 'hrgs1kzyk',
    upstream: '10.0.0.3:8080',
    retries: 2,
    contentType: 'text/html',
    requestId: 'a05d97e2-8977-4d54',
    ...part,
  };
}

/** A row of a top list. */
export function top(part: Partial<TopRow> = {}): TopRow {
  return {
    level: 60,
    windowMs: hourMs,
    rowId: 7,
    source: 'caddy',
    host: '',
    kind: 'path',
    packed: '[3,0,[["/a",0,0,3,1,1,5,"AA=="]]]',
    ...part,
  };
}

/** A ledger. */
export function snapshot(part: Partial<LedgerSnapshot> = {}): LedgerSnapshot {
  return {
    collector: 'edge-1',
    timeMs: hourMs,
    received: 100,
    accepted: 80,
    runtime: 10,
    events: 4,
    rejected: { 'not-json': 6, 'too-long': 1 },
    dropped: { 'memory-full': 3 },
    stored: 70,
    spooled: 5,
    inMemory: 4,
    deadLettered: 1,
    warnings: {},
    lastLineMs: hourMs - 1,
    ...part,
  };
}

/** Returns a function that creates the batches of one writer, as a recorder with this name does. */
export function writerOf(
  recorder = 'collector-1',
): (parts: Partial<Pick<Batch, 'requests' | 'kept' | 'topLists' | 'events' | 'ledger' | 'imported'>>) => Batch {
  const writer = randomUUID();
  const batchAggregates = new BatchAggregates(() => hourMs);
  const open = new OpenRollups();
  let sequence = 0;
  return ({ requests = [], kept, topLists = [], events, ledger, imported }) => {
    sequence += 1;
    const isSampled = kept && new Set(kept);
    for (const each of requests) batchAggregates.add(each, undefined, undefined, isSampled?.has(each));
    const aggregates = batchAggregates.take();
    return {
      recorder,
      writer,
      sequence,
      requests,
      kept,
      aggregates,
      rollups: open.copiesOf(open.merge(aggregates, hourMs)),
      topLists,
      events,
      ledger,
      imported,
    };
  };
}

/** The first batch of a new writer. */
export function batchOf(
  parts: Partial<Pick<Batch, 'requests' | 'topLists' | 'events' | 'ledger' | 'imported'>>,
): Batch {
  return writerOf()(parts);
}
