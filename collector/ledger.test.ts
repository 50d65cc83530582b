import test from 'ava';
import { createLedgerSchedule, createLineAccounts, ledgerOf } from './ledger.js';

test('writes the ledger when it has changed and every five seconds, independent of the wall clock', (t) => {
  let monotonicMs = 0;
  const due = createLedgerSchedule('edge', { monotonicMs: () => monotonicMs });
  const accounts = createLineAccounts();
  const dueAt = (nowMs: number) =>
    due(ledgerOf(accounts, { recorded: 0, stored: 0, deadLettered: 0, hostsOverLimit: 0 }), nowMs)?.timeMs;
  const [startMs, yearMs] = [Date.UTC(2026, 10, 29), 365 * 86_400_000];
  t.is(dueAt(startMs), startMs);
  t.is(dueAt(startMs + yearMs), undefined, 'a clock step forward is not elapsed time');
  accounts.received += 1;
  t.is(dueAt(startMs + yearMs), startMs + yearMs);
  monotonicMs = 5000;
  t.is(dueAt(startMs), startMs, 'a clock step back does not delay the heartbeat');
});
