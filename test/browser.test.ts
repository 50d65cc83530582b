/** The page in a real browser, served by the whole program over the embedded store. */
import { Buffer } from 'node:buffer';
import { rm } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';
import type { Page } from 'playwright-core';
import { startChromium, testWithChromium } from './chromium.js';
import { freePorts } from './ports.js';
import { startProgram, temporaryFolder } from './program.js';
import { readSample, sendTcp } from './sample.js';
import { until } from './until.js';

const sample = readSample();

testWithChromium('the page tells how to connect Caddy, and shows the traffic by itself when it comes, without JavaScript', async (t) => {
  await withPage(t, { width: 1280 }, async ({ page, port, url }) => {
    await page.goto(`${url}/?refresh=1`);
    t.true((await page.locator('pre').innerText()).includes(`output net tcp/127.0.0.1:${port}`));
    await sendTcp(port, linesEndingNow(2000), [65_536]);
    await page.getByText('Status codes').first().waitFor({ timeout: 20_000 }); // the page loads itself again
    await until('all 2,000 are on the page', async () => (await page.locator('main').innerText()).includes('2,000'));
    t.true(await page.locator('svg[role=img]').count() > 0);
  });
});

testWithChromium('hostile values neither run nor break the layout at 320 px', async (t) => {
  await withPage(t, { width: 320 }, async ({ page, port, url }) => {
    const hostile = ['/<script>document.title="owned"</script>', '/"><img src=x onerror=alert(1)>', `/${'x'.repeat(6000)}`, '/\u202Egnp.exe', '/a\u0000b'];
    const lines = hostile.map((uri, at) => changed(sample.lines[at]!, (entry) => {
      entry['ts'] = Date.now() / 1000;
      entry['request'] = { ...entry['request'] as object, uri, host: `${uri.slice(1, 60)}.example` };
    }));
    await sendTcp(port, Buffer.from(`${lines.join('\n')}\n`), [65_536]);
    await until('they are stored', async () => (await (await fetch(`${url}/api/requests?source=caddy`)).json() as unknown[]).length === hostile.length);
    await page.goto(`${url}/?source=caddy&refresh=off`);
    t.regex(await page.title(), /Caddy Log Sink/);
    t.is(await page.locator('img[src=x]').count(), 0);
    const widths = await page.evaluate<[number, number]>('[document.documentElement.scrollWidth, document.documentElement.clientWidth]');
    t.is(widths[0], widths[1], 'nothing is wider than the window');
  });
});

/** Runs the program, and opens a page on which scripts are off; nothing may be logged, blocked or asked of another host. */
async function withPage(t: ExecutionContext, { width }: { width: number }, run: (parts: { page: Page; port: number; url: string }) => Promise<void>): Promise<void> {
  const cwd = await temporaryFolder();
  const [port, http, web] = await freePorts(3) as [number, number, number];
  const url = `http://127.0.0.1:${web}`;
  const program = await startProgram(['start'], {
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`, COLLECTOR_HTTP: `127.0.0.1:${http}`, WEB_LISTEN: `127.0.0.1:${web}`,
  }, [`${url}/ready`], { cwd });
  const browser = await startChromium();
  try {
    const context = await browser.newContext({ viewport: { width, height: 900 }, javaScriptEnabled: false });
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on('console', (message) => { complaints.push(message.text()); });
    page.on('request', (request) => { if (!request.url().startsWith(url)) complaints.push(`asked for ${request.url()}`); });
    await run({ page, port, url });
    t.deepEqual(complaints, []);
  } finally {
    await browser.close();
    await program.stop();
    await rm(cwd, { recursive: true, force: true });
  }
}

/** Lines of the sample as if they had been written during the last minute. */
function linesEndingNow(count: number): Buffer {
  const nowMs = Date.now();
  const lines = sample.lines.slice(0, count).map((line, at) => changed(line, (entry) => {
    entry['ts'] = (nowMs - (count - at) * (60_000 / count)) / 1000;
  }));
  return Buffer.from(`${lines.join('\n')}\n`);
}

function changed(line: string, change: (entry: Record<string, unknown>) => void): string {
  const entry = JSON.parse(line) as Record<string, unknown>;
  change(entry);
  return JSON.stringify(entry);
}
