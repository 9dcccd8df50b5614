// Copyright The apikey-operator Authors.
// SPDX-License-Identifier: Apache-2.0

// The client of the REST API. Its URLs are relative to the page, so that a proxy may serve both below a path prefix.

const pageSize = 1000; // keys in a response
const timeout = 30_000; // ms; creating or rotating a key takes up to 20 s
const maxRetryDelay = 5_000; // ms

/** The path of the page, which ends with a slash. Consoles below different paths of a host have different ones. */
export const basePath = new URL(".", document.baseURI).pathname;

/** An error response of the API. Its message is that of the API. */
export class ResponseError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** The API key is not valid, or may not do this. */
  get isDenial() { return this.status === 401 || this.status === 403; }

  /** The server is not ready: it is starting, or cannot reach the Kubernetes API. */
  get isUnavailable() { return this.status === 503; }
}

/** The error of a request without a response of the API. The request may have taken effect. */
export class NoResponseError extends Error {}

/** The error of a request that a proxy in front of the console answered, and did not forward. The same request fails again. */
export class ProxyError extends Error {
  static #prefix = "A proxy in front of the console";

  /** The proxy wants the user to sign in, which it asks for when the page is loaded. */
  static signIn(did) { return new ProxyError(`${ProxyError.#prefix} ${did}. To sign in again, reload the page.`); }

  static refusal(status) {
    return new ProxyError(`${ProxyError.#prefix} answered with status ${status}. It must forward all requests below ${basePath}.`);
  }
}

let clockLead = 0; // ms by which the clock of the server is ahead of that of the browser

/** Returns the time of the server, in ms like Date.now(): the clock of the browser may be wrong by days. */
export function serverNow() { return Date.now() + clockLead; }

/** A client with an API key. Without a key, it can only describe the console. */
export class Client {
  #key;
  #onRetry;

  /** onRetry is called with an error before each retry, and with nothing when a request ends. */
  constructor(key, onRetry = () => {}) {
    this.#key = key;
    this.#onRetry = onRetry;
  }

  /** Returns the namespace of the console, and the URL of the service that its keys are for. */
  async describe() {
    return (await this.#get(resolve("."))).payload;
  }

  /** Returns the key of this client, its namespace, and what it may do. */
  async self(signal) {
    return (await this.#get(urlOf("api-keys/self"), signal)).payload;
  }

  /** Returns a key with its conditions and its manifest. */
  async key(id, signal) {
    return (await this.#get(urlOf(`api-keys/${encodeURIComponent(id)}`), signal)).payload;
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

  /** Changes the access or the expiry of a key, and returns it. To take any from the API key of this client, force must be true. */
  async update(id, changes, force) {
    return (await this.#send("PATCH", urlOf(`api-keys/${encodeURIComponent(id)}?force=${force}`), { body: changes })).payload;
  }

  /**
   * Rotates the token of a key, and returns the key with its new token, or with the Secret to which the controller writes that. The former
   * token is accepted for the overlap, such as 24h. To end the token of this client, or to rotate a key although a deployment tool may
   * revert that, force must be true.
   */
  async rotate(id, overlap, force) {
    return (await this.#send("POST", urlOf(`api-keys/${encodeURIComponent(id)}/rotate?force=${force}`), { body: { overlap } })).payload;
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
    const headers = { Accept: "application/json" };
    if (this.#key) headers["X-Api-Key"] = this.#key;
    if (body) headers["Content-Type"] = "application/json";
    const deadline = AbortSignal.timeout(timeout);
    let response, text;
    try {
      response = await fetch(url, {
        method, headers, body: JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
        // The cookies and the Basic credentials are those of a proxy. A redirect is an answer of a proxy, too.
        cache: "no-store", credentials: "same-origin", redirect: "manual",
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      throw new NoResponseError(response ? "The response of the console is incomplete."
        : navigator.onLine ? "The console does not respond." : "This browser is offline.", { cause: error });
    }
    const { errorMessage, payload } = contentOf(response, text);
    const date = Date.parse(response.headers.get("Date"));
    if (date) clockLead = date - Date.now();
    if (!response.ok) throw new ResponseError(response.status, errorMessage);
    return { payload, link: response.headers.get("Link"), url: response.url };
  }
}

/** Returns the content of a response of the API. Throws if the response is not complete, or is that of a proxy. */
function contentOf({ type, ok, status, headers }, text) {
  const isJSON = headers.get("Content-Type")?.startsWith("application/json");
  let content = null;
  try {
    content = JSON.parse(text);
  } catch {
    if (isJSON) throw new NoResponseError("The response of the console is incomplete.");
  }
  if (typeof content?.errorCode === "number") return content;
  if (type === "opaqueredirect") throw ProxyError.signIn("redirected the request, probably to its sign-in page");
  if (ok) throw ProxyError.signIn("answered with a page, probably its sign-in page");
  if (status === 401 || status === 403) throw ProxyError.signIn(`answered with status ${status}`);
  if (status === 429 || status >= 500) throw new NoResponseError(`A proxy in front of the console answered with status ${status}.`);
  throw ProxyError.refusal(status);
}

/** Returns the URL of a path of the API. */
function urlOf(path) { return resolve(`api/v1/${path}`); }

function resolve(path) {
  const url = new URL(path, document.baseURI);
  url.username = url.password = ""; // of the page, if its address has them: fetch accepts no such URL
  return url;
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
