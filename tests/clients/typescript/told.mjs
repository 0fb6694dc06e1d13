// What the Python test tells of the fleet and its script, and a look at the wire below an SDK.

export const told = JSON.parse(process.env.TOLD);

/** As an agent would answer calls of the script's tool. */
export const degrees = (city) => told.degrees[city];

/** A `fetch` for an SDK that notes the bodies of answers as they come. */
export class Wire {
  text = '';
  #waiting = [];

  fetch = async (url, init) => {
    const response = await fetch(url, init);
    const decoder = new TextDecoder();
    const noted = new TransformStream({
      transform: (chunk, onward) => {
        this.#note(decoder.decode(chunk, { stream: true }));
        onward.enqueue(chunk);
      },
    });
    return new Response(response.body.pipeThrough(noted), response);
  };

  /** Resolve once an answer has this text in it; the test's own timeout bounds the wait. */
  has(part) {
    return new Promise((resolve) => {
      this.#waiting.push({ part, resolve });
      this.#note('');
    });
  }

  #note(piece) {
    this.text += piece;
    for (const { part, resolve } of this.#waiting) if (this.text.includes(part)) resolve();
  }
}
