/** Sentences with times: as plain text for a title, and as parts whose times the template marks up. */

/** A time for people, `text`, and for machines, `iso`. */
export interface Time {
  readonly iso: string;
  readonly text: string;
}

/** The parts of a sentence. */
export type Phrase = readonly (string | Time)[];

/** Template tag: creates a phrase from text, times and other phrases. */
export function phrase(texts: TemplateStringsArray, ...values: readonly (string | Time | Phrase)[]): Phrase {
  return texts
    .flatMap((text, at) => [text, values[at] ?? ''])
    .flat()
    .filter((part) => part !== '');
}

/** Returns a phrase as plain text. */
export function textOf(words: Phrase): string {
  return words.map((part) => (typeof part === 'string' ? part : part.text)).join('');
}
