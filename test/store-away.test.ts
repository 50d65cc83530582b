/** An open page while its store goes away and comes back: the web app over the real InfluxDB, in a real browser. */
import test from 'ava';
import { startInfluxd, testWithInfluxd } from './influxd.js';
import { chromiumOnPath, startChromium } from './launch-chromium.js';
import { freePort } from './ports.js';
import { startProgram } from './program.js';
import { until } from './until.js';

const declare: typeof testWithInfluxd = chromiumOnPath() === undefined ? test.skip : testWithInfluxd;

declare(
  'a page whose store goes away keeps its figures, says since when and why, and goes on when the store is back',
  async (t) => {
    const influxd = await startInfluxd();
    t.teardown(() => influxd.stop());
    const url = `http://127.0.0.1:${await freePort()}`;
    const { org, bucket, token } = influxd;
    const web = await startProgram(
      ['web'],
      {
        STORE: 'influxdb',
        INFLUXDB_URL: influxd.url,
        INFLUXDB_ORG: org,
        INFLUXDB_BUCKET: bucket,
        INFLUXDB_TOKEN: token,
        WEB_LISTEN: url.slice('http://'.length),
      },
      [`${url}/ready`],
    );
    t.teardown(() => web.stop());
    const browser = await startChromium();
    t.teardown(() => browser.close());
    const page = await browser.newPage();
    const main = () => page.locator('main').innerText();
    const live = () => page.locator('#live').innerText();
    await page.goto(`${url}/?refresh=1&source=dashboard`);
    await until('the dashboard counts its own requests', async () => {
      await fetch(`${url}/api/ping`);
      return (await main()).includes('this page and its API');
    });
    await page.locator('#edit summary').click();
    await page.locator('#edit input[name=host]').fill('half a wor');

    await influxd.kill();
    await until('the page says so', async () =>
      /^Stale since \d\d:\d\d:\d\d UTC: the server responded with status 503\. Retrying\.$/.test(await live()),
    );
    t.true((await main()).includes('this page and its API'), 'the last figures stay');
    const answer = await fetch(url);
    t.deepEqual([answer.status, answer.headers.get('retry-after')], [503, '5']);
    const text = await answer.text();
    t.regex(
      text,
      /InfluxDB at http:\/\/127\.0\.0\.1:\d+ cannot be reached since .* UTC: nothing listens at that address\. Check that/,
    );
    t.notRegex(text, /ECONNREFUSED/);
    t.regex(web.stderr(), /ECONNREFUSED/, 'the detail is in the log');

    await influxd.restart();
    await until('it goes on', async () => (await live()) === 'Live again');
    t.is(await page.locator('#edit input[name=host]').inputValue(), 'half a wor');
  },
);
