import test from 'ava';
import { ledger } from '../../test/web-samples.js';
import { collectorCards } from './collector-cards.js';

test('a collector card shows clock skew with its unit and remedy, and omits it if there is none', (t) => {
  const figures = (warnings: { 'clock-skew'?: number }) =>
    collectorCards([ledger({ warnings })], Date.now(), Date.now())[0]!.figures.filter(
      ({ name }) => name === 'Clock skew',
    );
  t.deepEqual(figures({ 'clock-skew': 300 }), [
    {
      name: 'Clock skew',
      value: '300\u00a0s',
      note: 'between Caddy and the collector: synchronize both with NTP',
      alarm: true,
    },
  ]);
  t.deepEqual(figures({}), []);
});
