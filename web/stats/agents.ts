/** Who a user agent says it is. Anyone can say anything: these are claims. */
import Bowser from 'bowser';
import { isbot } from 'isbot';

/** What a user agent says; `''` where that does not apply to it. */
export interface Agent {
  /** Whether it is a person with a browser, or anything else. */
  readonly who: 'people' | 'bots';
  /** `Firefox`, `Chrome`, … or `other`; `''` for a bot. */
  readonly browser: string;
  /** `142`: the major version of the browser; `''` where it is not known. */
  readonly version: string;
  /** `Windows`, `iOS`, … or `other`; `''` for a bot. */
  readonly system: string;
  /** `Googlebot`, `curl`, …: all that is no person with a browser; `''` for a browser. */
  readonly bot: string;
}

const other = 'other';

/** So many are remembered: a list has a hundred or so, the same ones again and again. */
const rememberedMax = 5000;
const remembered = new Map<string, Agent>();

/** Reads a user agent that is not empty. */
export function agentOf(userAgent: string): Agent {
  let agent = remembered.get(userAgent);
  if (agent === undefined) {
    agent = readAgent(userAgent);
    if (remembered.size >= rememberedMax) remembered.clear();
    remembered.set(userAgent, agent);
  }
  return agent;
}

/** `Firefox 144, Windows`, or the name of a bot; what says neither is its own name. */
export function agentName(userAgent: string): string {
  if (userAgent === '') return '';
  const { who, browser, version, system, bot } = agentOf(userAgent);
  const name = who === 'bots' ? bot : browser;
  if (name === other) return userAgent;
  return who === 'bots' ? name : `${name}${version === '' ? '' : ` ${version}`}, ${system}`;
}

function readAgent(userAgent: string): Agent {
  if (isbot(userAgent)) return { who: 'bots', browser: '', version: '', system: '', bot: botName(userAgent) };
  const { browser, os } = Bowser.parse(userAgent);
  return {
    who: 'people',
    browser: browser.name || other,
    version: browser.version?.split('.')[0] ?? '',
    system: os.name || other,
    bot: '',
  };
}

/** The word that says bot, or the name that comes first. */
function botName(userAgent: string): string {
  const [, name] =
    /([\w-]*(?:bot|crawler|spider)[\w-]*)/i.exec(userAgent) ??
    /compatible; ([^/;)]+)/.exec(userAgent) ??
    /^([^\s/;(]+)/.exec(userAgent) ??
    [];
  return name === undefined || name === 'Mozilla' ? other : name;
}
