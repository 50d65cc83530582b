/** Collector cards: what each collector did with the lines it received. */
import { isoTime } from '../../shared/time-range.js';
import { ledgerWarnings, type LedgerSnapshot, type LedgerWarning } from '../../shared/store/store.js';
import { reportSilenceMsMax } from '../stats/collection.js';
import { sumOf } from '../stats/fold.js';
import { count, moment, nbsp, printable, reasonsText } from '../format.js';
import { phrase } from './phrase.js';

/** Returns a card for each collector. `nowMs` is the clock of the page, which ticks in parts of a window. */
export function collectorCards(ledgers: readonly LedgerSnapshot[], nowMs: number, exactMs: number) {
  return [...ledgers]
    .sort((a, b) => (a.collector < b.collector ? -1 : 1))
    .map((ledger) => {
      const figure = (name: string, value: number, note: string, alarm = false) => ({
        name,
        value: count(value),
        note,
        alarm: alarm && value > 0,
      });
      return {
        collector: printable(ledger.collector, 40),
        silent:
          exactMs - ledger.timeMs > reportSilenceMsMax
            ? phrase`no report since ${{ iso: isoTime(ledger.timeMs), text: moment(ledger.timeMs, nowMs) }} UTC`
            : undefined,
        figures: [
          {
            name: 'Last line',
            iso: ledger.lastLineMs === null ? undefined : isoTime(ledger.lastLineMs),
            value: ledger.lastLineMs === null ? 'none' : moment(ledger.lastLineMs, nowMs),
            note: ledger.lastLineMs === null ? 'since start' : 'UTC',
            alarm: false,
          },
          figure('Received', ledger.received, 'lines since start'),
          figure('Accepted', ledger.accepted, 'requests'),
          figure('Other log lines', ledger.runtime, 'not access logs'),
          figure('Rejected', sumOf(ledger.rejected), reasonsText(ledger.rejected) || 'not recognized'),
          figure('Dropped', sumOf(ledger.dropped), reasonsText(ledger.dropped) || 'lost', true),
          figure('Stored', ledger.stored, 'requests'),
          figure('In memory', ledger.inMemory, 'waiting to be written'),
          figure('Spooled', ledger.spooled, 'waiting on disk', true),
          figure('Dead-lettered', ledger.deadLettered, 'refused by the store', true),
          ...ledgerWarnings
            .filter((warning) => (ledger.warnings[warning] ?? 0) > 0)
            .map((warning) => warningFigure(warning, ledger.warnings[warning]!)),
        ],
      };
    });
}

function warningFigure(warning: LedgerWarning, value: number) {
  const { name, note, unit = '' } = warningTexts[warning];
  return { name, value: `${count(value)}${unit}`, note, alarm: true };
}

const warningTexts: Readonly<
  Record<LedgerWarning, { readonly name: string; readonly note: string; readonly unit?: string }>
> = {
  'peers-not-allowed': { name: 'Refused', note: 'connections: not in COLLECTOR_ALLOW' },
  'peers-too-many-connections': { name: 'Refused', note: 'connections: limit reached' },
  'connections-evicted': { name: 'Evicted', note: 'idle connections' },
  'datagrams-lost': { name: 'Lost UDP lines', note: 'dropped by the kernel' },
  'earlier-spooled': { name: 'Spooled earlier', note: 'by a previous run' },
  'clock-skew': {
    name: 'Clock skew',
    note: 'between Caddy and the collector: synchronize both with NTP',
    unit: `${nbsp}s`,
  },
};
