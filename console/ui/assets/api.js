// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The REST API, as this page calls it. Its addresses are relative to the page, so that a proxy may serve both below a path of its own.

const pageSize = 1000; // keys in one answer
const timeout = 30_000; // ms; a creation takes up to 10 s
const longestPause = 5_000; // ms

/** The API refuses a call: the message has its words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** The key was not accepted, or not for this call. */
  get ofKey() { return this.status === 401 || this.status === 403; }

  /** The server cannot tell at the moment: it is starting, or cut off from its own source of keys. */
  get starting() { return this.status === 503; }
}

/** There was no answer that could be read: whether the call took effect is not known. */
export class Unanswered extends Error {}

/** The calls of the API, made with one key. */
export class Api {
  #key;
  #onWait;

  /** onWait is called with the error that is waited out, and without one when the wait is over. */
  constructor(key, onWait) {
    this.#key = key;
    this.#onWait = onWait;
  }

  /** Fails unless the key may read. */
  async check(signal) {
    await this.#read(address("api-keys/count"), signal);
  }

  /** Yields all keys, oldest first, in arrays. */
  async *keys(signal) {
    for (let next = address(`api-keys?limit=${pageSize}`); next;) {
      const { payload, link, url } = await this.#read(next, signal);
      yield payload;
      const following = /<([^>]*)>; *rel="next"/.exec(link);
      next = following && new URL(following[1], url);
    }
  }

  /** Creates a key and returns it with its token. */
  async create(wanted) {
    return (await this.#call("POST", address("api-keys"), { body: wanted })).payload;
  }

  /** Deactivates a key and returns it. The key that asks is deactivated with force only. */
  async deactivate(id, force) {
    return (await this.#call("DELETE", address(`api-keys/${encodeURIComponent(id)}?force=${force}`))).payload;
  }

  /** Reads as often as it takes to get an answer, or until the signal. */
  async #read(url, signal) {
    try {
      for (let pause = 500; ; pause = Math.min(2 * pause, longestPause)) {
        try {
          return await this.#call("GET", url, { signal });
        } catch (error) {
          if (!error.starting && !(error instanceof Unanswered)) throw error;
          this.#onWait(error);
        }
        await passed(pause, signal);
      }
    } finally {
      this.#onWait();
    }
  }

  async #call(method, url, { body, signal } = {}) {
    const headers = { "X-Api-Key": this.#key };
    if (body) headers["Content-Type"] = "application/json";
    const limit = AbortSignal.timeout(timeout);
    let response, answer;
    try {
      response = await fetch(url, {
        method, headers, body: JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, limit]) : limit,
        cache: "no-store", credentials: "omit", redirect: "error",
      });
      answer = await response.json();
    } catch (error) {
      signal?.throwIfAborted();
      throw new Unanswered(response ? `The answer (status ${response.status}) cannot be read.` : "The console does not answer.",
        { cause: error });
    }
    if (!response.ok) throw new Refusal(response.status, answer?.errorMessage ?? `The console answers with status ${response.status}.`);
    return { payload: answer.payload, link: response.headers.get("Link"), url: response.url };
  }
}

/** The address of a call, which can be given to other programs too. */
export function address(path) {
  return new URL(`api/v1/${path}`, document.baseURI);
}

function passed(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
