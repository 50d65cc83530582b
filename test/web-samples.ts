import type { RequestEvent } from '../shared/request-event.js';
import type { LedgerSnapshot } from '../shared/store/store.js';
import { emptyRequest } from './empty-request.js';

/** A request for tests: what is not given is plain. */
export function event(parts: Partial<RequestEvent>): RequestEvent {
  return {
    ...emptyRequest,
    source: 'caddy',
    timeMs: 0,
    host: 'shop.example',
    method: 'GET',
    status: 200,
    durationMs: 1,
    size: 0,
    protocol: 'HTTP/1.1',
    ...parts,
  };
}

/** A ledger for tests: what is not given is zero. */
export function ledger(parts: Partial<LedgerSnapshot>): LedgerSnapshot {
  return {
    collector: 'edge-1',
    timeMs: 0,
    received: 0,
    accepted: 0,
    runtime: 0,
    events: 0,
    rejected: {},
    dropped: {},
    stored: 0,
    spooled: 0,
    inMemory: 0,
    deadLettered: 0,
    warnings: {},
    lastLineMs: null,
    ...parts,
  };
}
