// The only place that talks to the service. Everything here is the public API, which openapi.yaml describes,
// and the session of this page.
//
//   call(method, path, {query, body, ifMatch, accept, headers, signal, keepalive}) -> {data, etag, status}
//   stream(method, path, options)  -> AsyncGenerator of the lines of NDJSON, each parsed
//   create(link)                   -> the link; the same again after a failure makes no second one
//   url(path, query)               -> the address of a request, as a person would share it
//
// Both throw
//   Problem   the service has answered, and said no: {status, code, detail, field, retryAfter}
//   Away      the service has not answered, or said that it cannot now: {retryAfter}
//   AbortError, if `signal` fired.
//
// watch(listener): the listener hears 'away' when no answer comes any more, 'back' when the service is well
// again, and 'signedout' when the session has ended. It returns a function that ends that. doubt() asks the
// service whether it is well, after something else has failed.

/** @typedef {Record<string, string | number | boolean | null | undefined>} Query  null, undefined and '' are left out
 * @typedef {{query?: Query, body?: unknown, ifMatch?: string | null, accept?: string, headers?: Record<string, string>,
 *   signal?: AbortSignal, keepalive?: boolean}} Options  a body that is a string or a Blob is sent as it is, any other as JSON
 * @typedef {{data: any, etag: string | null, status: number}} Answer */

export class Problem extends Error {
  /** @param {number} status @param {{code?: string, detail?: string}} body @param {number} retryAfter in seconds, 0 if not said */
  constructor(status, body, retryAfter) {
    super(body.detail || `HTTP ${status}`)
    this.name = 'Problem'
    this.status = status
    this.code = body.code || 'internal'
    this.detail = this.message
    this.retryAfter = retryAfter
    /** The field that is wrong, or null if the service names none. @type {string | null} */
    this.field = field(this.code, this.detail)
  }
}

export class Away extends Error {
  /** @param {string} why @param {number} retryAfter in seconds, 0 if not said */
  constructor(why, retryAfter) {
    super(why)
    this.name = 'Away'
    this.retryAfter = retryAfter
  }
}

/** @param {string} code @param {string} detail */
function field(code, detail) {
  if (code === 'invalid_url') return 'url'
  if (code === 'invalid_code' || code === 'code_taken') return 'code'
  return code === 'invalid_field' ? /"([a-z_]+)"/.exec(detail)?.[1] ?? null : null
}

/** @param {string} path @param {Query} [query] */
export function url(path, query) {
  const q = new URLSearchParams()
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== '') q.set(name, String(value))
  }
  return q.size > 0 ? `${path}?${q}` : path
}

/** @param {string} method @param {string} path @param {Options} [options] @returns {Promise<Answer>} */
export async function call(method, path, options = {}) {
  const r = await send(method, path, options)
  const type = r.headers.get('Content-Type') ?? ''
  let data = null
  try {
    if (r.status !== 204) data = /json/.test(type) && !/ndjson/.test(type) ? await r.json() : await r.text()
  } catch (err) {
    throw lost(err)
  }
  return { data, etag: r.headers.get('ETag'), status: r.status }
}

/** @param {string} method @param {string} path @param {Options} [options] @returns {AsyncGenerator<any>} */
export async function* stream(method, path, options = {}) {
  const r = await send(method, path, options)
  const reader = /** @type {ReadableStream<Uint8Array>} */ (r.body).getReader()
  const decoder = new TextDecoder()
  let rest = ''
  for (;;) {
    let part
    try {
      part = await reader.read()
    } catch (err) {
      throw lost(err)
    }
    rest += decoder.decode(part.value, { stream: !part.done })
    const lines = rest.split('\n')
    rest = part.done ? '' : /** @type {string} */ (lines.pop())
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line)
    if (part.done) return
  }
}

/** @param {string} method @param {string} path @param {Options} options */
async function send(method, path, { query, body, ifMatch, accept = 'application/json', headers = {}, signal, keepalive }) {
  const h = new Headers({ Accept: accept, ...headers })
  if (ifMatch) h.set('If-Match', ifMatch)
  /** @type {BodyInit | undefined} */
  let sent
  if (typeof body === 'string' || body instanceof Blob) {
    sent = body
  } else if (body !== undefined) {
    sent = JSON.stringify(body)
    h.set('Content-Type', 'application/json')
  }
  let r
  try {
    r = await fetch(url(path, query), { method, headers: h, body: sent, signal, keepalive, credentials: 'same-origin', cache: path.startsWith('/dashboard/') ? 'no-store' : 'default' })
  } catch (err) {
    throw lost(err)
  }
  if (r.ok) return r
  const retryAfter = Number(r.headers.get('Retry-After')) || 0
  const said = await r.json().catch(() => ({}))
  // A problem that the service words itself is an answer, but 502 to 504 mean that nobody could give one.
  if (r.status >= 502 && r.status <= 504) {
    doubt()
    throw new Away(said.detail || `HTTP ${r.status}`, retryAfter)
  }
  if (r.status === 401 && path !== '/dashboard/session') tell('signedout')
  throw new Problem(r.status, said, retryAfter)
}

// What the service was last asked to make without an answer, and the key under which it may be asked again.
let asked = { body: '', key: '' }

/** @param {Record<string, any>} link */
export async function create(link) {
  const body = JSON.stringify(link)
  // Pages that came over plain HTTP have no crypto.randomUUID.
  if (asked.body !== body) asked = { body, key: Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('') }
  const { data } = await call('POST', '/links', { body, headers: { 'Content-Type': 'application/json', 'Idempotency-Key': asked.key } })
  asked = { body: '', key: '' }
  return data
}

/** @param {unknown} err */
function lost(err) {
  if (err instanceof DOMException && err.name === 'AbortError') return err
  doubt()
  return new Away(String(err), 0)
}

/** @type {Set<(what: 'away' | 'back' | 'signedout') => void>} */
const listeners = new Set()
let away = false
let asking = false

/** @param {(what: 'away' | 'back' | 'signedout') => void} listener */
export function watch(listener) {
  listeners.add(listener)
  return () => void listeners.delete(listener)
}

/** @param {'away' | 'back' | 'signedout'} what */
function tell(what) {
  for (const l of listeners) l(what)
}

// One request that failed may be that request's own matter: the service itself says whether it is well.
export async function doubt() {
  if (asking) return
  asking = true
  for (;;) {
    let well = false
    try {
      well = (await fetch('/healthz', { cache: 'no-store', signal: AbortSignal.timeout(4000) })).ok
    } catch {
      // no answer, or none in time
    }
    if (well) break
    if (!away) {
      away = true
      tell('away')
    }
    await new Promise((go) => setTimeout(go, 1500))
  }
  asking = false
  if (away) {
    away = false
    tell('back')
  }
}
