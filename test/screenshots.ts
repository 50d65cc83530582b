/**
 * Makes the pictures in `docs/screenshots` (`npm run screenshots`): the demo in Chromium, always with the same
 * requests.
 */
import { mkdir, stat } from 'node:fs/promises';
import { runProgram } from './program.js';
import { startChromium } from './launch-chromium.js';
import { until } from './until.js';

/** Pictures are loaded by everybody who opens the README. */
const bytesMax = 300_000;

/** The day's incident is in the last six hours. */
const view = '/?from=now-6h&refresh=off';

/** Down to the last chart, or to the `height`, in pixels. */
const pictures = [
  { name: 'light', colorScheme: 'light', width: 1280, height: undefined },
  { name: 'dark', colorScheme: 'dark', width: 1280, height: undefined },
  { name: 'narrow', colorScheme: 'light', width: 390, height: 1180 },
] as const;

const demo = await runProgram(['demo', '--seed', '1'], {
  WEB_LISTEN: '127.0.0.1:0',
  COLLECTOR_LISTEN: 'tcp://127.0.0.1:0',
});
const browser = await startChromium();
try {
  const url = await until('the demo serves', () => /Dashboard +(http:\S+)/.exec(demo.stdout())?.[1], {
    waitMsMax: 120_000,
  });
  await mkdir('docs/screenshots', { recursive: true });
  for (const { name, colorScheme, width, height } of pictures) {
    const context = await browser.newContext({ viewport: { width, height: 1000 }, colorScheme });
    const page = await context.newPage();
    await page.goto(url + view, { waitUntil: 'networkidle' });
    const path = `docs/screenshots/${name}.png`;
    const charts = await page.locator('.charts').last().boundingBox();
    await page.screenshot({
      path,
      fullPage: true,
      clip: { x: 0, y: 0, width, height: height ?? charts!.y + charts!.height + 8 },
    });
    await context.close();
    const { size } = await stat(path);
    process.stdout.write(`${path}  ${Math.round(size / 1000)} kB\n`);
    if (size > bytesMax)
      throw new Error(`${path} has ${size} bytes: more than ${bytesMax} are too many for a README. Make it smaller.`);
  }
} finally {
  await browser.close();
  await demo.stop();
}
