import test from 'ava';
import { agentName, agentOf } from './agents.js';

test('distinguishes browsers and bots', (t) => {
  t.deepEqual(agentOf('Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0'), {
    who: 'people',
    browser: 'Firefox',
    version: '120',
    system: 'Linux',
    bot: '',
  });
  t.deepEqual(
    agentOf(
      'Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1',
    ),
    { who: 'people', browser: 'Safari', version: '17', system: 'iOS', bot: '' },
  );
  const bots = {
    'Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)': 'Googlebot',
    'Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0 Safari/537.36':
      'bingbot',
    'curl/8.5.0': 'curl',
    'Go-http-client/1.1': 'Go-http-client',
    'python-requests/2.31.0': 'python-requests',
  };
  for (const [userAgent, bot] of Object.entries(bots))
    t.deepEqual(agentOf(userAgent), { who: 'bots', browser: '', version: '', system: '', bot });
});

test('returns a short name, or the user agent itself if it is not recognized', (t) => {
  t.is(agentName('Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0'), 'Firefox 120, Linux');
  t.is(agentName('curl/8.5.0'), 'curl');
  t.is(agentName('a strange one'), 'a', 'the first word, as for any bot');
  t.is(agentName('Mozilla/5.0'), 'Mozilla/5.0');
  t.is(agentName(''), '');
});

test('parses any text', (t) => {
  for (const text of ['x', ' ', '()', 'Mozilla/5.0', '__proto__', '\u0001', 'a'.repeat(250)]) {
    const { browser, system, bot } = agentOf(text);
    t.is(browser === '', bot !== '', text);
    t.is(browser === '', system === '', text);
  }
});
