/**
 * The page in a real browser, served by the whole program over the embedded store; what may differ over InfluxDB is
 * tried over it too.
 */
import { Buffer } from 'node:buffer';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, stat } from 'node:fs/promises';
import { createServer, request, type RequestListener } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import type { Page } from 'playwright-core';
import { testWithChromium } from './chromium.js';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { chromiumOnPath, startChromium } from './launch-chromium.js';
import { documentedCountries, writeMmdb } from './mmdb.js';
import { freePorts } from './ports.js';
import { readLedger, runProgram, startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { readSample, sendTcp } from './sample.js';
import { until } from './until.js';

const sample = readSample();
const influxd = influxdOfThisFile();

testOverBothStores(
  'the page tells how to connect Caddy, and shows the traffic by itself when it comes, without JavaScript',
  async (t, store) => {
    await withPage(t, { store, width: 1280, javaScript: false }, async ({ page, port, url }) => {
      await page.goto(`${url}/?refresh=1`);
      t.true((await page.locator('pre').innerText()).includes(`output net tcp/127.0.0.1:${port}`));
      await sendTcp(port, linesEndingNow(2000), [65_536]);
      await page.getByText('Status codes').first().waitFor({ timeout: 20_000 }); // the page loads itself again
      await until('all 2,000 are on the page', async () => (await page.locator('main').innerText()).includes('2,000'));
      t.true((await page.locator('svg[role=img]').count()) > 0);
    });
  },
);

for (const width of [320, 1440]) {
  testOverBothStores(
    `hostile values and 200 hosts neither run nor break the layout at ${width} px`,
    async (t, store) => {
      await withPage(t, { store, width }, async ({ page, port, url }) => {
        const hostile = [
          '/<script>document.title="owned"</script>',
          '/"><img src=x onerror=alert(1)>',
          "/'-alert(1)-'",
          `/${'x'.repeat(6000)}`,
          `/${'<b>'.repeat(2000)}`,
          '/\u202Egnp.exe',
          '/\u2066\u0000\u001b[31m\u0085',
          '/{{7*7}}#{7*7}',
          '/\ud83d\ude00'.repeat(300),
        ];
        const lines = hostile.map((text, at) =>
          changed(sample.lines[at]!, (entry) => {
            const headers = { 'User-Agent': [text], Referer: [`javascript:${text}`] };
            entry['ts'] = Date.now() / 1000;
            entry['request'] = {
              ...(entry['request'] as object),
              uri: text,
              headers,
              method: `M${at}`,
              host: `${text.slice(1, 250)}.example`,
            };
          }),
        );
        const hosts = Array.from({ length: 200 }, (_, at) =>
          changed(sample.lines[at]!, (entry) => {
            entry['ts'] = Date.now() / 1000;
            entry['request'] = {
              ...(entry['request'] as object),
              host: `${'long-name-'.repeat(at % 20)}${at}.example`,
            };
          }),
        );
        await sendTcp(port, Buffer.from(`${[...lines, ...hosts].join('\n')}\n`), [65_536]);
        await untilStored(url, hostile.length + hosts.length);
        const dialogs: string[] = [];
        page.on('dialog', (dialog) => {
          dialogs.push(dialog.message());
          void dialog.dismiss();
        });
        for (const search of [
          'source=caddy&limit=300',
          `source=caddy&path=${encodeURIComponent(hostile[0]!)}`,
          `host=${encodeURIComponent(hostile[3]!)}`,
        ]) {
          await page.goto(`${url}/?refresh=1&${search}`);
          await page.evaluate('document.querySelectorAll("details").forEach((details) => { details.open = true; })');
          t.regex(await page.title(), /Caddy Log Sink$/);
          t.is(
            await page.locator('main img, main script, main b, main a:not([href^="/"])').count(),
            0,
            'nothing of it is markup or a link of its own',
          );
          t.is(await wider(page), '', 'nothing sticks out of the window');
          const text = await page.locator('body').innerText();
          t.notRegex(text, /(?!\n|\t)[\p{Cc}\p{Bidi_Control}]/u, 'control characters are shown by their numbers');
        }
        t.deepEqual(dialogs, []);
      });
    },
  );
}

testOverBothStores('a live update keeps scroll, focus, selection, and open details', async (t, store) => {
  await withPage(t, { store, width: 1280 }, async ({ page, port, url }) => {
    await sendTcp(port, linesEndingNow(500), [65_536]);
    await untilStored(url, 500);
    await page.goto(`${url}/?refresh=1&source=caddy`);
    const summary = page.locator('.chart-table summary').first();
    await summary.click();
    await page.evaluate('window.marked = document.querySelector("#main");');
    await page.locator('#edit summary').click();
    await page.locator('#edit input[name=host]').fill('half a wor');
    await summary.focus();
    await page.evaluate('window.scrollTo(0, 400)');
    const scrolled = await page.evaluate<number>('scrollY');
    await sendTcp(port, linesEndingNow(700), [65_536]);
    await until('the new requests are on the page', async () =>
      (await page.locator('main').innerText()).includes('1,200'),
    );
    // Where a line comes or goes above, the browser itself makes up for it.
    t.true(Math.abs((await page.evaluate<number>('scrollY')) - scrolled) < 100);
    t.true(await page.evaluate('document.querySelector(".chart-table").open'));
    t.true(await page.evaluate('document.activeElement === document.querySelector(".chart-table summary")'));
    t.is(await page.locator('#edit input[name=host]').inputValue(), 'half a wor');
    await page.evaluate('getSelection().selectAllChildren(document.querySelector("#statuses-heading"))');
    await sendTcp(port, linesEndingNow(34), [65_536]);
    await until('more are on the page', async () => (await page.locator('main').innerText()).includes('1,234'));
    t.is(await page.evaluate('String(getSelection())'), 'Status codes');
    t.true(await page.evaluate('window.marked === document.querySelector("#main")'), 'the page was not loaded again');
  });
});

testOverBothStores(
  'Pause stops updates, Resume continues them, and the page shows since when the server has been away',
  async (t, store) => {
    await withPage(
      t,
      { store, width: 1280, complaintsAllowed: /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/ },
      async ({ page, port, url, program }) => {
        await sendTcp(port, linesEndingNow(500), [65_536]);
        await untilStored(url, 500);
        await page.goto(`${url}/?refresh=1&source=caddy`);
        const live = page.locator('#live');
        await page.keyboard.press('Tab');
        t.is(await page.evaluate('document.activeElement.id'), 'pause', 'pause is the first in focus order');
        await page.keyboard.press('Enter');
        t.regex(await live.innerText(), /^Paused at \d\d:\d\d:\d\d UTC$/);
        let polls = 0;
        page.on('request', () => {
          polls += 1;
        });
        await sendTcp(port, linesEndingNow(700), [65_536]);
        await untilStored(url, 1200);
        t.is(polls, 0);
        await page.getByText('Resume').click();
        await until('the new requests are on the page', async () =>
          (await page.locator('main').innerText()).includes('1,200'),
        );

        await program.restart(async () => {
          await until('the page says so', async () => /^Stale since \d\d:\d\d:\d\d UTC: /.test(await live.innerText()));
          t.true((await page.locator('main').innerText()).includes('1,200'), 'the last figures stay');
        });
        await until('it recovers', async () => (await live.innerText()) === 'Live again');
      },
    );
  },
);

testWithChromium('a change of state is said once, and not again while its figures change', async (t) => {
  await withPage(t, { width: 1280 }, async ({ page, port, url }) => {
    const errors = (count: number): Buffer =>
      Buffer.from(
        `${linesEndingNow(count)
          .toString('utf8')
          .trimEnd()
          .split('\n')
          .map((line) =>
            changed(line, (entry) => {
              entry['status'] = 502;
            }),
          )
          .join('\n')}\n`,
      );
    await sendTcp(port, linesEndingNow(500), [65_536]);
    await untilStored(url, 500);
    await page.goto(`${url}/?refresh=1&source=caddy`);
    const said: string[] = [];
    await page.exposeFunction('hear', (text: string) => {
      if (text !== '') said.push(text);
    });
    await page.evaluate(
      'new MutationObserver(() => hear(document.querySelector("#live").textContent)).observe(document.querySelector("#live"), { childList: true, characterData: true, subtree: true })',
    );
    let stored = 500;
    for (const more of [300, 200, 100]) {
      await sendTcp(port, errors(more), [65_536]);
      stored += more;
      await until(`${stored} requests are on the page`, async () =>
        (await page.locator('main').innerText()).includes(stored.toLocaleString('en')),
      );
    }
    await until('what was said has gone again', async () => (await page.locator('#live').innerText()) === '');
    t.is(said.length, 1, said.join('; '));
    t.regex(said[0]!, /^5xx rose to [\d.]+\u00a0% at \d\d:\d\d UTC at Caddy/);
  });
});

testOverBothStores('everything can be steered by links alone, without JavaScript', async (t, store) => {
  await withPage(t, { store, width: 1280, javaScript: false }, async ({ page, port, url, web }) => {
    await sendTcp(port, linesEndingNow(500), [65_536]);
    // Of the host that the web app itself is asked under: an app beside the edge.
    await sendTcp(
      port,
      Buffer.from(
        `${changed(sample.lines[0]!, (entry) => {
          entry['ts'] = Date.now() / 1000 - 5;
          entry['request'] = { ...(entry['request'] as object), host: `127.0.0.1:${web}` };
        })}\n`,
      ),
      [65_536],
    );
    await untilStored(url, 501);
    const search = (): Record<string, string> => Object.fromEntries(new URL(page.url()).searchParams);
    const follow = async (selector: string, hasText?: string | RegExp): Promise<Record<string, string>> => {
      await page
        .locator(selector, hasText === undefined ? {} : { hasText })
        .first()
        .click();
      await page.locator('main').waitFor();
      return search();
    };
    await page.goto(`${url}/?refresh=60`);
    t.deepEqual(await follow('.ranges a', '15 min'), { refresh: '60', from: 'now-15m' });
    t.deepEqual(await follow('.ranges a', 'Zoom out'), { refresh: '60', from: 'now-30m' });
    t.deepEqual(await follow('.ranges a', 'Zoom in'), { refresh: '60', from: 'now-15m' });
    t.deepEqual(await follow('.refresh a', 'off'), { refresh: 'off', from: 'now-15m' }, 'paused');
    t.is(await page.locator('meta[http-equiv]').count(), 0);
    const earlier = await follow('.ranges a', 'Earlier');
    t.is(Date.parse(earlier['to']!) - Date.parse(earlier['from']!), 900_000);
    t.deepEqual(await follow('.ranges a', 'Later'), { refresh: 'off', from: 'now-15m' });
    t.deepEqual(await follow('.compare a'), { refresh: 'off', from: 'now-15m', compare: 'off' });
    t.is(await page.locator('.chart .before').count(), 0);

    await page.goto(`${url}/?refresh=off`);
    t.deepEqual(await follow('.source-header a', 'caddy'), { refresh: 'off', source: 'caddy' });
    t.deepEqual(await follow('.legend a', '2xx'), { refresh: 'off', source: 'caddy', status: '2xx' });
    t.deepEqual(await follow('.status-codes a', '200'), { refresh: 'off', source: 'caddy', status: '200' });
    t.deepEqual(await follow('#top-method a', 'GET'), {
      refresh: 'off',
      source: 'caddy',
      status: '200',
      method: 'GET',
    });
    const host = await follow('#top-host tbody a');
    const path = await follow('.latest .uri a');
    t.truthy(host['host']);
    t.regex(path['path']!, /^\//);
    t.is(await page.locator('.chip').count(), 5);
    for (const name of ['path', 'host', 'method', 'status', 'source'])
      t.is((await follow('.chip', name))[name], undefined, `the chip takes ${name} away`);
    t.deepEqual(search(), { refresh: 'off' });

    t.deepEqual(await follow('.choices a', 'Errors first'), { refresh: 'off', errors: 'first' });
    t.deepEqual(await follow('.choices a', 'Errors only'), { refresh: 'off', status: '5xx' });

    await page.goto(`${url}/?refresh=off`);
    const stage = (await page.locator('.chart-stage').first().boundingBox())!;
    // In a chart of an hour that ends now: somewhere in its last quarter.
    await page.mouse.click(stage.x + stage.width * 0.8, stage.y + stage.height / 2);
    await page.waitForURL(/from=20/);
    const window = search();
    t.is(Date.parse(window['to']!) - Date.parse(window['from']!), 60_000, 'the window that was marked');
    await page.goto(`${url}/?refresh=off`);
    await page.locator('.chart-table summary').first().click();
    const row = await follow('.chart-table tbody a');
    t.is(Date.parse(row['to']!) - Date.parse(row['from']!), 60_000, 'and so does the table');

    await page.goto(`${url}/?refresh=off`);
    t.true(
      (await page.locator('#outside-1').isVisible()) && (await page.locator('#unmatched-1').isVisible()),
      'an app beside the edge has its charts',
    );
    const links = await page.evaluate<string[]>(
      '[...document.querySelectorAll(".panel-link")].map(({ href }) => href)',
    );
    t.true(links.length > 20);
    for (const link of links) {
      const { status, headers } = await fetch(link);
      t.is(status, 200, link);
      t.regex(
        headers.get('content-type')!,
        { svg: /^image\/svg/, csv: /^text\/csv/, json: /^application\/json/ }[
          /\.(\w+)(?:\?|$)/.exec(link)![1] as 'svg'
        ],
        link,
      );
    }
  });
});

testWithChromium('with the keyboard alone every control is reached, in order, seen, and works', async (t) => {
  await withPage(t, { width: 1280 }, async ({ page, port, url }) => {
    await sendTcp(port, linesEndingNow(500), [65_536]);
    await untilStored(url, 500);
    await page.goto(`${url}/?refresh=60&source=caddy`);
    const focused = (): Promise<{ what: string; seen: boolean; layer: boolean } | null> =>
      page.evaluate(`(() => {
      const element = document.activeElement;
      if (element === document.body) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const { top, bottom, left, right, width } = element.getBoundingClientRect();
      const inside = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth && width > 0;
      return { what: element.id || element.textContent.trim(), seen: inside && outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2, layer: element.closest('.chart-links') !== null };
    })()`);
    const order: string[] = [];
    for (;;) {
      await page.keyboard.press('Tab');
      const at = await focused();
      if (at === null || order.length > 500) break;
      t.true(at.seen, `the focus is seen at ${at.what}`);
      t.false(at.layer, 'charts do not trap the keyboard');
      order.push(at.what);
    }
    t.deepEqual(order.slice(0, 6), ['pause', 'off', '5 s', '15 s', '60 s', 'Skip to the figures'], 'pause comes first');
    t.is(
      order.length,
      await page.evaluate<number>(
        '[...document.querySelectorAll("a[href]:not([tabindex]), button:not([hidden]), summary, [tabindex=\'0\']")].filter((each) => each.checkVisibility()).length',
      ),
      'every link, button and region',
    );

    await page.locator('#edit summary').focus();
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab'); // the source
    await page.keyboard.press('Tab');
    await page.keyboard.press('Tab');
    await page.keyboard.type('GET');
    await page.keyboard.press('Enter');
    await page.waitForURL(/method=GET/);
    await page.locator('.chip', { hasText: 'GET' }).focus();
    await page.keyboard.press('Enter');
    await page.waitForURL((at) => !at.searchParams.has('method'));
  });
});

testWithChromium(
  'the form filters the page by every filter and chooses a range, and a chip takes the filter away, without JavaScript, at 320 px',
  async (t) => {
    await withPage(t, { width: 320, javaScript: false }, async ({ page, port, url }) => {
      await sendTcp(port, linesEndingNow(500), [65_536]);
      await untilStored(url, 500);
      await page.goto(`${url}/?edit=on&source=caddy`);
      await page.locator('input[name=method]').fill('POST');
      await page.getByRole('button', { name: 'Filter' }).click();
      t.is(new URL(page.url()).searchParams.get('method'), 'POST');
      await page.locator('.chip', { hasText: 'POST' }).click();
      t.is(new URL(page.url()).search, '?source=caddy');
      const filters = {
        source: 'caddy',
        host: 'a b',
        method: 'PUT',
        status: '4xx',
        path: '/ä',
        client: '2001:db8::',
        user_agent: 'curl/8 (+x)',
        referrer: 'https://a.example/',
        request_id: '<b>',
        error: 'dial tcp 10.0.0.3:80: connect: connection refused',
        upstream: '10.0.0.3:80',
      };
      await page.goto(`${url}/?edit=on&refresh=60`);
      for (const [name, value] of Object.entries(filters))
        await page.locator(`.form-filter input[name=${name}]`).fill(value);
      t.is(await wider(page), '');
      await page.getByRole('button', { name: 'Filter' }).click();
      t.deepEqual(Object.fromEntries(new URL(page.url()).searchParams), { refresh: '60', ...filters });
      t.is(await page.locator('.chip').count(), Object.keys(filters).length);
      t.is(
        await page.locator('.form-filter input[name=request_id]').inputValue(),
        '<b>',
        'the form has what is in force',
      );
      await page.goto(`${url}/?edit=on&source=caddy`);
      await page.locator('input[name=from]').fill('2026-01-01T10:00');
      await page.locator('input[name=to]').fill('2026-01-01T11:00');
      await page.getByRole('button', { name: 'Show' }).click();
      t.true((await page.locator('main').innerText()).includes('1\u00a0Jan 10:00 –'));
    });
  },
);

testWithChromium(
  'a page enlarged to 200 %, by zoom or by its type alone, is no wider than the window, and nothing of it moves',
  async (t) => {
    await withPage(t, { width: 720 }, async ({ page, port, url }) => {
      await sendTcp(port, linesEndingNow(2000), [65_536]);
      await untilStored(url, 2000);
      await page.emulateMedia({ reducedMotion: 'reduce' });
      // Windows of 1440 and 1280 px at 200 % have 720 and 640 px of the page.
      for (const { width, type } of [
        { width: 720, type: 100 },
        { width: 640, type: 100 },
        { width: 1280, type: 200 },
        { width: 640, type: 200 },
      ]) {
        await page.setViewportSize({ width, height: 450 });
        for (const path of ['/?refresh=15', '/?refresh=15&edit=on&source=caddy&user_agent=x']) {
          await page.goto(url + path);
          await page.evaluate(
            `document.querySelectorAll("details").forEach((details) => { details.open = true; }); document.documentElement.style.fontSize = '${type}%'`,
          );
          t.is(await wider(page), '', `${path} at ${width} px, type ${type} %`);
          t.deepEqual(
            await page.evaluate(
              `[...document.querySelectorAll('h1, h2, h3, summary, label, .figure-value, .choices a, .button')].filter((each) => each.checkVisibility() && !each.matches('.visually-hidden') && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== 'inline').map((each) => each.outerHTML.slice(0, 120))`,
            ),
            [],
            'no text is cut',
          );
        }
      }
      t.deepEqual(
        await page.evaluate(
          `[document.getAnimations().length, ...new Set([...document.querySelectorAll('*')].map((each) => { const style = getComputedStyle(each); return style.transitionDuration + style.animationName + style.scrollBehavior; }))]`,
        ),
        [0, '0snoneauto'],
      );
    });
  },
);

testWithChromium('the figures of a card fill its rows at any width', async (t) => {
  await withPage(t, { width: 320 }, async ({ page, port, url }) => {
    await sendTcp(port, linesEndingNow(500), [65_536]);
    await untilStored(url, 500);
    for (const width of [320, 360, 390, 430, 600, 768, 1024, 1200, 1280, 1440, 1920]) {
      await page.setViewportSize({ width, height: 900 });
      await page.goto(`${url}/?refresh=off&source=caddy`);
      const rows = await page.evaluate<readonly (readonly number[])[]>(
        `[...document.querySelectorAll('.figures')].map((figures) => Object.values(Object.groupBy(figures.children, (figure) => figure.offsetTop)).map((row) => row.length))`,
      );
      for (const figures of rows) {
        t.is(
          figures.reduce((sum, row) => sum + row),
          10,
        );
        t.true(
          new Set(figures.slice(0, -1)).size <= 1 && [1, figures[0]].includes(figures.at(-1)),
          `${figures.join(' + ')} at ${width} px`,
        );
      }
      const fills = await page.evaluate<boolean>(
        '(({ offsetWidth, parentElement }) => offsetWidth === parentElement.offsetWidth)(document.querySelector(".figure:last-child"))',
      );
      t.is(fills, rows[0]!.at(-1) === 1, `one that is alone has the whole row at ${width} px`);
    }
  });
});

testWithChromium('request ids, pairs and countries at 320 px scroll in their tables alone', async (t) => {
  const folder = await temporaryFolder();
  const database = join(folder, 'countries.mmdb');
  await writeMmdb(database, documentedCountries);
  try {
    await withPage(t, { width: 320, settings: { GEOIP_DATABASE: database } }, async ({ page, port, url }) => {
      const lines = sample.lines.slice(0, 50).map((line, at) =>
        changed(line, (entry) => {
          entry['ts'] = Date.now() / 1000;
          entry['request_id'] = `${at}-${'i'.repeat(200)}`;
          entry['request'] = {
            ...(entry['request'] as object),
            remote_ip: '192.0.2.1',
            client_ip: ['192.0.2.1', '192.0.2.200'][at % 2],
          };
        }),
      );
      await sendTcp(port, Buffer.from(`${lines.join('\n')}\n`), [65_536]);
      await untilStored(url, 50);
      await until(
        'the countries are listed',
        async () => ((await (await fetch(`${url}/api/top/country`)).json()) as unknown[]).length === 2,
      );
      await page.goto(`${url}/?refresh=off&source=caddy`);
      t.is(await page.locator('#top-country tbody tr').count(), 2);
      t.is(await wider(page), '');
      const header = page.locator('.latest thead th', { hasText: 'Request id' });
      await header.scrollIntoViewIfNeeded();
      const box = (await header.boundingBox())!;
      t.true(box.x >= 0 && box.x + box.width <= 320, 'its own region scrolls to the last column');
      t.is(await wider(page), '');
      for (const list of await page.locator('.top').all()) {
        const { width } = (await list.boundingBox())!;
        t.true(
          width <=
            (await list.evaluate(
              (table) => (table as unknown as { parentElement: { clientWidth: number } }).parentElement.clientWidth,
            )),
          'a list needs no scrolling',
        );
      }
    });
  } finally {
    await rm(folder, { recursive: true });
  }
});

testWithChromium('a chart leads to its windows by keyboard, through its table, and by finger', async (t) => {
  await withPage(t, { width: 320, hasTouch: true }, async ({ page, port, url }) => {
    await sendTcp(port, linesEndingNow(500), [65_536]);
    await untilStored(url, 500);
    const opened = `${url}/?refresh=off&source=caddy`;
    const length = (): number => {
      const { from, to } = Object.fromEntries(new URL(page.url()).searchParams);
      return Date.parse(to!) - Date.parse(from!);
    };
    await page.goto(opened);
    await page.locator('.chart-table summary').first().focus();
    await page.keyboard.press('Enter');
    for (const expected of ['DIV', 'A', 'TIME']) {
      await page.keyboard.press('Tab');
      t.is(
        await page.evaluate(
          '(document.activeElement.querySelector(":scope > time") ?? document.activeElement).tagName',
        ),
        expected,
        'its region, its CSV, its windows',
      );
    }
    await page.keyboard.press('Enter');
    await page.waitForURL(/to=20/);
    t.is(length(), 60_000);

    await page.goto(opened);
    const targets = await page.evaluate<readonly { width: number; height: number }[]>(
      `[...document.querySelectorAll('.chart-links rect')].filter((each) => each.checkVisibility()).map((each) => { const { width, height } = each.getBoundingClientRect(); return { width, height }; })`,
    );
    t.true(targets.length >= 4 * 8);
    t.deepEqual(
      targets.filter(({ width, height }) => width < 24 || height < 24),
      [],
      'wide enough for a finger',
    );
    await page.locator('.chart-stage').first().scrollIntoViewIfNeeded();
    const stage = (await page.locator('.chart-stage').first().boundingBox())!;
    await page.touchscreen.tap(stage.x + stage.width * 0.7, stage.y + stage.height / 2);
    await page.waitForURL(/to=20/);
    t.is(length(), 7 * 60_000, 'a ninth of an hour');
  });
});

for (const { width, colorScheme } of [
  { width: 1440, colorScheme: 'light' },
  { width: 1440, colorScheme: 'dark' },
  { width: 320, colorScheme: 'light' },
  { width: 320, colorScheme: 'dark' },
] as const) {
  testWithChromium(
    `axe-core finds nothing, and the page is no wider than the window, at ${width} px in the ${colorScheme} theme`,
    async (t) => {
      await withPage(t, { width, colorScheme }, async ({ page, port, url }) => {
        await sendTcp(port, linesEndingNow(2000), [65_536]);
        await untilStored(url, 2000);
        for (const path of ['/?refresh=15&host=x', '/?refresh=15&edit=on', '/?refresh=15']) {
          await page.goto(url + path);
          await page.evaluate('document.querySelectorAll("details").forEach((details) => { details.open = true; })');
          t.deepEqual(await violations(page), [], path);
          t.is(await wider(page), '', path);
        }
      });
    },
  );
}

testWithChromium('the whole page is under 60 KB compressed', async (t) => {
  await withPage(t, { width: 1280 }, async ({ page, port, url }) => {
    await sendTcp(port, linesEndingNow(2000), [65_536]);
    await untilStored(url, 2000);
    const sizes: Promise<number>[] = [];
    page.on('requestfinished', (request) => {
      sizes.push(request.sizes().then(({ responseBodySize }) => responseBodySize));
    });
    await page.goto(url, { waitUntil: 'networkidle' });
    const total = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
    t.log(`${total} bytes in ${sizes.length} answers`);
    t.true(sizes.length >= 3 && total < 60_000, String(total));
  });
});

for (const { name, site } of [
  { name: 'localhost', site: 'cross-site' },
  { name: '127.0.0.1', site: 'same-site' },
]) {
  testWithChromium(
    `a page of another origin (${site}) can make neither the dashboard nor the collector work, and links to the dashboard open it`,
    async (t) => {
      const cwd = await temporaryFolder();
      const [port, http, web] = (await freePorts(3)) as [number, number, number];
      const program = await startProgram(
        ['start'],
        {
          COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
          COLLECTOR_HTTP: `127.0.0.1:${http}`,
          WEB_LISTEN: `127.0.0.1:${web}`,
        },
        [`http://127.0.0.1:${web}/ready`],
        { cwd },
      );
      // The browser hides from the page what it blocks: what the servers answer is seen between them.
      const answers: string[] = [];
      const [dashboard, collector] = await Promise.all(
        [web, http].map((to) =>
          serve(t, (asked, answer) => {
            asked.pipe(
              request(
                { host: '127.0.0.1', port: to, method: asked.method, path: asked.url, headers: asked.headers },
                (response) => {
                  answers.push(
                    `${asked.method} ${asked.url} ${asked.headers['sec-fetch-dest']} ${asked.headers['sec-fetch-site']} ${response.statusCode}`,
                  );
                  answer.writeHead(response.statusCode!, response.headers);
                  response.pipe(answer);
                },
              ),
            );
          }),
        ),
      );
      const [url, status] = [`http://127.0.0.1:${dashboard}`, `http://127.0.0.1:${collector}`];
      const other = await serve(t, (_asked, answer) => {
        answer.setHeader('content-type', 'text/html').end(`
        <a href="${url}/?refresh=off&from=now-6h">the dashboard</a>
        ${[`${url}/?image`, `${url}/ready`, `${url}/chart/latency.svg`, `${status}/ledger`, `${status}/metrics`].map((address) => `<img src="${address}">`).join('')}
        <script src="${url}/api/requests?limit=10000"></script><link rel="stylesheet" href="${url}/style"><link rel="prefetch" href="${url}/prefetch">
        <iframe src="${url}/frame"></iframe><object data="${url}/object"></object><embed src="${url}/embed">
        <iframe name="posted"></iframe>
        <form method="post" action="${status}/import" target="posted" enctype="text/plain"><input name="a" value="b"></form>
        <script>
          document.forms[0].submit();
          fetch('${url}/api/summary', { mode: 'no-cors' }).catch(() => {});
          fetch('${url}/api/series').catch(() => {});
          fetch('${status}/import', { method: 'POST', headers: { 'content-type': 'application/x-ndjson' }, body: '{}' }).catch(() => {});
          new WebSocket('ws://127.0.0.1:${dashboard}/socket');
        </script>`);
      });
      const browser = await startChromium();
      try {
        const page = await browser.newPage();
        await page.goto(`http://${name}:${other}/`);
        const expected = [
          'GET /?image image',
          'GET /ready image',
          'GET /chart/latency.svg image',
          'GET /ledger image',
          'GET /metrics image',
          'GET /api/requests?limit=10000 script',
          'GET /style style',
          'GET /prefetch empty',
          'GET /frame iframe',
          'GET /object object',
          'GET /embed embed',
          'POST /import iframe',
          'GET /api/summary empty',
          'GET /api/series empty',
          'OPTIONS /import empty',
        ]
          .map((asked) => `${asked} ${site} 403`)
          .concat('GET /socket undefined undefined 403')
          .sort();
        // Chromium preloads what the page names, and may ask once more when it comes to the place.
        await until('all has been refused', () => expected.every((line) => answers.includes(line))).catch(
          () => undefined,
        );
        t.deepEqual([...new Set(answers)].sort(), expected);
        answers.length = 0;
        await page.getByText('the dashboard').click();
        await page.waitForURL(`${url}/?refresh=off&from=now-6h`);
        await page.getByText('Connect Caddy').first().waitFor();
        t.deepEqual(
          answers.filter((line) => !line.endsWith(' 200')),
          [],
        );
        t.true(answers.includes(`GET /?refresh=off&from=now-6h document ${site} 200`));
      } finally {
        await browser.close();
        await program.stop();
        await rm(cwd, { recursive: true, force: true });
      }
    },
  );
}

const testWithFileLimits: typeof testWithChromium = process.platform === 'linux' ? testWithChromium : test.skip;
testWithFileLimits(
  'a disk that is full, while the program runs and when it starts, is on the page and in an alert, and all is well when there is room again',
  async (t) => {
    const cwd = await temporaryFolder();
    const [port, http, web] = (await freePorts(3)) as [number, number, number];
    const url = `http://127.0.0.1:${web}`;
    const alerts: { status: string; kind: string; source: string; text: string }[] = [];
    const receiver = await serve(t, (asked, answer) => {
      void text(asked).then((body) => {
        alerts.push(JSON.parse(body) as (typeof alerts)[number]);
        answer.end();
      });
    });
    const settings = {
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
      ALERT_WEBHOOK: `http://127.0.0.1:${receiver}/`,
    };
    // No file may grow beyond this: writes fail as on a full disk, and no rights are needed.
    const limitFiles = (pid: number, bytes: string): Promise<unknown> =>
      promisify(execFile)('prlimit', [`--pid=${pid}`, `--fsize=${bytes}:`]);
    let program = await startProgram(['start'], settings, [`${url}/ready`], { cwd });
    const browser = await startChromium();
    try {
      const page = await browser.newPage();
      const says = async (words: RegExp): Promise<void> => {
        let sentence = '';
        const saysNow = async (): Promise<boolean> => {
          await page.goto(`${url}/?refresh=off`);
          sentence = await page.locator('.status-sentence').innerText();
          return words.test(sentence);
        };
        await until(`the page says ${words}`, saysNow, { waitMsMax: 60_000, pollMs: 300 }).catch((error: unknown) => {
          t.log('The page says', sentence, 'and the program wrote', program.stderr());
          throw error;
        });
      };
      const untilFull = async (): Promise<void> => {
        for (let at = 0; (await fetch(`http://127.0.0.1:${http}/ready`)).ok; at += 1) {
          t.true(at < 100, 'the disk gets full');
          await sendTcp(port, linesEndingNow(2000), [65_536]);
        }
      };
      await sendTcp(port, linesEndingNow(2000), [65_536]);
      await says(/^All well/);
      await limitFiles(program.pid, '20000');
      await untilFull();
      const full =
        /^Nothing is being stored: Cannot write to the DuckDB file .*its disk is full. Make room.* Requests since \d\d:\d\d:\d\d UTC are queued in memory/;
      await says(full);
      t.is(await page.title(), 'Nothing is being stored · Caddy Log Sink');
      t.is(await page.locator('.status-failing').count(), 1);
      t.is((await fetch(`${url}/ready`)).status, 200, 'the store can be read, and the page shown');
      const fired = await until(
        'an alert is posted',
        () => alerts.find(({ status, kind }) => status === 'firing' && kind === 'not-stored'),
        { waitMsMax: 90_000 },
      );
      t.is(fired.source, 'store');
      t.regex(fired.text, /^Firing: nothing is being stored \(Cannot write to the DuckDB file /);
      await limitFiles(program.pid, 'unlimited');
      await says(/^All well/);
      // Draining takes longer than stopping may, on a slow machine.
      await until('the queue is stored', async () => (await readLedger(http)).in_memory === 0);
      t.is(await program.stop(), 0, program.stderr());

      const { size } = await stat(join(cwd, 'data/requests.duckdb'));
      program = await runProgram(['start'], settings, { cwd });
      await limitFiles(program.pid, String(size));
      await until('it runs', () =>
        fetch(`${url}/ready`).then(
          ({ ok }) => ok,
          () => false,
        ),
      );
      await untilFull();
      await says(full);
      await limitFiles(program.pid, 'unlimited');
      await says(/^All well/);
    } finally {
      await browser.close();
      await program.stop();
      await rm(cwd, { recursive: true, force: true });
    }
  },
);

/** Serves on a free port of 127.0.0.1 for as long as the test runs; resolves to the port. */
async function serve(t: ExecutionContext, handle: RequestListener): Promise<number> {
  const server = createServer(handle).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

/** Declares a test over the embedded store, and one over the real InfluxDB. */
function testOverBothStores(title: string, run: (t: ExecutionContext, store: StoreName) => Promise<void>): void {
  testWithChromium(`${title}, over DuckDB`, (t) => run(t, 'duckdb'));
  const declare: typeof testWithInfluxd = chromiumOnPath() === undefined ? test.skip : testWithInfluxd;
  declare(`${title}, over InfluxDB`, (t) => run(t, 'influxdb'));
}

type StoreName = 'duckdb' | 'influxdb';

/** What tells the program which store to use: an empty one. */
async function storeSettings(store: StoreName): Promise<Record<string, string>> {
  if (store === 'duckdb') return {};
  const { url, org, token, createBucket } = await influxd();
  return {
    STORE: 'influxdb',
    INFLUXDB_URL: url,
    INFLUXDB_ORG: org,
    INFLUXDB_BUCKET: await createBucket(),
    INFLUXDB_TOKEN: token,
  };
}

/** What is wider than the window; `''` where the page is not. */
function wider(page: Page): Promise<string> {
  return page.evaluate<string>(`(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return '';
    const scrolled = (element) => element.parentElement !== null && (getComputedStyle(element.parentElement).overflowX !== 'visible' || scrolled(element.parentElement));
    const out = [...document.querySelectorAll('body *')].find((element) => element.getBoundingClientRect().right > clientWidth + 1 && !scrolled(element));
    return scrollWidth + ' px: ' + (out?.outerHTML.slice(0, 200) ?? 'something');
  })()`);
}

/** What axe-core finds, one line for each element. It is run past the page's policy, which would not let it in. */
async function violations(page: Page): Promise<string[]> {
  const source = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  await page.evaluate(source);
  return page.evaluate<string[]>(
    'axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html, any, all }) => `${id}: ${html.slice(0, 150)} ${[...any, ...all].map(({ message }) => message).join("; ")}`)))',
  );
}

interface PageOptions {
  /** Default: DuckDB. */
  readonly store?: StoreName;
  readonly width: number;
  readonly javaScript?: boolean;
  readonly colorScheme?: 'light' | 'dark';
  readonly hasTouch?: boolean;
  /** What else the program is told. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Lines of the console that are no complaint. */
  readonly complaintsAllowed?: RegExp;
}

interface PageParts {
  readonly page: Page;
  /** Of the collector. */
  readonly port: number;
  /** Of the web app, which is at `url`. */
  readonly web: number;
  readonly url: string;
  /** Stops the program, runs `whileDown`, and starts it again over the same store. */
  readonly program: { restart(whileDown: () => Promise<void>): Promise<void> };
}

/** Runs the program, and opens a page; nothing may be logged, blocked or asked of another host. */
async function withPage(
  t: ExecutionContext,
  {
    store = 'duckdb',
    width,
    javaScript = true,
    colorScheme = 'light',
    hasTouch = false,
    settings = {},
    complaintsAllowed,
  }: PageOptions,
  run: (parts: PageParts) => Promise<void>,
): Promise<void> {
  const cwd = await temporaryFolder();
  const [port, http, web] = (await freePorts(3)) as [number, number, number];
  const url = `http://127.0.0.1:${web}`;
  const ofStore = await storeSettings(store);
  const start = (): Promise<RunningProgram> =>
    startProgram(
      ['start'],
      {
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
        COLLECTOR_HTTP: `127.0.0.1:${http}`,
        WEB_LISTEN: `127.0.0.1:${web}`,
        ...ofStore,
        ...settings,
      },
      [`${url}/ready`],
      { cwd },
    );
  let program = await start();
  const browser = await startChromium();
  try {
    const context = await browser.newContext({
      viewport: { width, height: 900 },
      javaScriptEnabled: javaScript,
      colorScheme,
      hasTouch,
    });
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => {
      if (!complaintsAllowed?.test(message.text())) complaints.push(message.text());
    });
    page.on('pageerror', (error) => {
      complaints.push(String(error));
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(url)) complaints.push(`asked for ${request.url()}`);
    });
    const restart = async (whileDown: () => Promise<void>): Promise<void> => {
      await program.stop();
      await whileDown();
      program = await start();
    };
    await run({ page, port, web, url, program: { restart } });
    t.deepEqual(complaints, []);
  } finally {
    await browser.close();
    await program.stop();
    await rm(cwd, { recursive: true, force: true });
  }
}

async function untilStored(url: string, requests: number): Promise<void> {
  await until(`${requests} requests are stored`, async () => {
    const { sources } = (await (await fetch(`${url}/api/summary`)).json()) as {
      sources: Record<string, { requests: number }>;
    };
    return sources['caddy']?.requests === requests;
  });
}

/** Lines of the sample as if they had been written during the last minute. */
function linesEndingNow(count: number): Buffer {
  const nowMs = Date.now();
  const lines = sample.lines.slice(0, count).map((line, at) =>
    changed(line, (entry) => {
      entry['ts'] = (nowMs - (count - at) * (60_000 / count)) / 1000;
    }),
  );
  return Buffer.from(`${lines.join('\n')}\n`);
}

function changed(line: string, change: (entry: Record<string, unknown>) => void): string {
  const entry = JSON.parse(line) as Record<string, unknown>;
  change(entry);
  return JSON.stringify(entry);
}
