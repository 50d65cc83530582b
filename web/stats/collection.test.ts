import test from 'ava';
import { ledger } from '../../test/web-samples.js';
import { collectionFindings, isNothingStored, RecentDrops, type Collection } from './collection.js';

const nowMs = 1_000_000;
const fresh = ledger({ collector: 'a', timeMs: nowMs - 15_000 });
const stale = ledger({ collector: 'b', timeMs: nowMs - 15_001 });

function found(parts: Partial<Collection>) {
  const findings = collectionFindings(
    { problem: undefined, heldIn: 'memory', ledgers: [], dropping: new Set(), ...parts },
    nowMs,
  );
  return { findings, isNothingStored: isNothingStored(findings) };
}

test('reports nothing while the store accepts writes and all collectors have reported within 15 s', (t) => {
  t.deepEqual(found({}), { findings: [], isNothingStored: false });
  t.deepEqual(found({ ledgers: [fresh] }), { findings: [], isNothingStored: false });
});

test('reports that nothing is stored since the newest ledger, and no silent collectors, while the store is down', (t) => {
  t.deepEqual(found({ problem: 'Full.', ledgers: [stale, fresh] }), {
    findings: [{ kind: 'not-stored', state: 'failing', sinceMs: fresh.timeMs, problem: 'Full.', heldIn: 'memory' }],
    isNothingStored: true,
  });
  t.like(found({ problem: 'Full.' }), {
    findings: [{ kind: 'not-stored', sinceMs: undefined }],
    isNothingStored: true,
  });
});

test('reports a silent collector: failing if it is the only one, degraded otherwise', (t) => {
  t.deepEqual(found({ ledgers: [stale] }), {
    findings: [{ kind: 'no-report', state: 'failing', sinceMs: stale.timeMs, collector: 'b' }],
    isNothingStored: true,
  });
  t.deepEqual(found({ ledgers: [fresh, stale] }), {
    findings: [{ kind: 'no-report', state: 'degraded', sinceMs: stale.timeMs, collector: 'b' }],
    isNothingStored: false,
  });
});

test('reports a collector that drops lines, also while the store is down', (t) => {
  const dropping = { ledgers: [{ ...fresh, dropped: { 'memory-full': 3 } }], dropping: new Set(['a']) };
  const finding = {
    kind: 'dropping',
    state: 'failing',
    sinceMs: fresh.timeMs,
    collector: 'a',
    dropped: { 'memory-full': 3 },
  } as const;
  t.deepEqual(found(dropping), { findings: [finding], isNothingStored: false });
  t.deepEqual(found({ ...dropping, problem: 'Full.' }).findings.slice(1), [finding]);
});

test('reports dropped lines for a minute after the count has grown', (t) => {
  const drops = new RecentDrops();
  const seen = (timeMs: number, lines: number, atMs = timeMs): string[] => [
    ...drops.observe(
      [ledger({ collector: 'a', timeMs, dropped: { 'memory-full': lines } }), ledger({ collector: 'b', timeMs })],
      atMs,
    ),
  ];
  t.deepEqual(seen(0, 5), [], 'the time of the drop is unknown');
  t.deepEqual(seen(5000, 5), []);
  t.deepEqual(seen(10_000, 6), ['a']);
  t.deepEqual(seen(5000, 5, 11_000), ['a'], 'an older ledger has no effect');
  t.deepEqual(seen(15_000, 6, 70_000), ['a']);
  t.deepEqual(seen(15_000, 6, 70_001), []);
  t.deepEqual(seen(80_000, 7), [], 'the reports are too far apart to attribute the drop to the last minute');
  t.deepEqual(seen(85_000, 1), [], 'the collector has restarted');
  t.deepEqual(seen(90_000, 2), ['a']);
});
