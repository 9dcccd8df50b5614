// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The client of the REST API. Its URLs are relative to the page, so that a proxy may serve both below a path prefix.

const pageSize = 1000; // keys in a response
const timeout = 30_000; // ms; creating a key takes up to 10 s
const maxRetryDelay = 5_000; // ms

/** An error response. Its message is that of the API. */
export class ResponseError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** The API key is not valid, or lacks the access for this request. */
  get isDenial() { return this.status === 401 || this.status === 403; }

  /** The server is not ready: it is starting, or cannot reach the Kubernetes API. */
  get isUnavailable() { return this.status === 503; }
}

/** The error of a request without a readable response. The request may have taken effect. */
export class NoResponseError extends Error {}

/** A client with an API key. */
export class Client {
  #key;
  #onRetry;

  /** onRetry is called with an error before each retry, and with nothing when a request ends. */
  constructor(key, onRetry) {
    this.#key = key;
    this.#onRetry = onRetry;
  }

  /** Throws unless the API key has read access. */
  async check(signal) {
    await this.#get(urlOf("api-keys/count"), signal);
  }

  /** Yields all keys in arrays, the oldest key first. */
  async *keys(signal) {
    for (let next = urlOf(`api-keys?limit=${pageSize}`); next;) {
      const { payload, link, url } = await this.#get(next, signal);
      yield payload;
      const following = /<([^>]*)>; *rel="next"/.exec(link);
      next = following && new URL(following[1], url);
    }
  }

  /** Creates a key and returns it with its token. */
  async create(key) {
    return (await this.#send("POST", urlOf("api-keys"), { body: key })).payload;
  }

  /** Deactivates a key and returns it. The API key of this client can be deactivated only with force. */
  async deactivate(id, force) {
    return (await this.#send("DELETE", urlOf(`api-keys/${encodeURIComponent(id)}?force=${force}`))).payload;
  }

  /** Sends a GET request, and retries until the server responds and is ready. */
  async #get(url, signal) {
    try {
      for (let delay = 500; ; delay = Math.min(2 * delay, maxRetryDelay)) {
        try {
          return await this.#send("GET", url, { signal });
        } catch (error) {
          if (!error.isUnavailable && !(error instanceof NoResponseError)) throw error;
          this.#onRetry(error);
        }
        await sleep(delay, signal);
      }
    } finally {
      this.#onRetry();
    }
  }

  async #send(method, url, { body, signal } = {}) {
    const headers = { "X-Api-Key": this.#key };
    if (body) headers["Content-Type"] = "application/json";
    const deadline = AbortSignal.timeout(timeout);
    let response, content;
    try {
      response = await fetch(url, {
        method, headers, body: JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
        cache: "no-store", credentials: "omit", redirect: "error",
      });
      content = await response.json();
    } catch (error) {
      signal?.throwIfAborted();
      throw new NoResponseError(response ? `The response (status ${response.status}) cannot be read.` : "The console does not respond.",
        { cause: error });
    }
    const { ok, status } = response;
    if (!ok) throw new ResponseError(status, content?.errorMessage ?? `The console responded with status ${status}.`);
    return { payload: content.payload, link: response.headers.get("Link"), url: response.url };
  }
}

/** Returns the URL of a path of the API. */
export function urlOf(path) {
  return new URL(`api/v1/${path}`, document.baseURI);
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
