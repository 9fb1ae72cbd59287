// What is being clicked, as the service tells it while it happens. It is told only while somebody looks: a
// browser has six connections to a server for all its tabs, and the service lets a key watch 16 times.

/** @typedef {{at: string, code: string, clicks: number}} Event_
 * @typedef {{on: boolean, busy: boolean, clicks: number, bots: number, seconds: number[], events: Event_[]}} State
 *   clicks and bots of the last minute; seconds: its clicks, bots with them, the present second last; events: the newest first */

const minute = 60

/** @param {Record<string, string>} params @param {() => void} changed something to draw @param {() => void} clicked there are new clicks, or may be
 * @returns {{state: () => State, toggle: () => void, move: (params: Record<string, string>) => void, close: () => void}} */
export function watchLive(params, changed, clicked) {
  /** @type {EventSource | undefined} */
  let source
  let wanted = true
  let busy = false
  let opened = false
  let retry = 0
  let pause = 5000
  /** @type {{second: number, clicks: number, bots: number}[]} */
  let heard = []
  /** @type {Event_[]} */
  let events = []

  const open = () => {
    window.clearTimeout(retry)
    if (!wanted || document.hidden || source) return
    source = new EventSource(`/clicks/live?${new URLSearchParams(params)}`)
    source.onopen = () => {
      busy = false
      pause = 5000
      changed()
      // What happened meanwhile is not told later: somebody was in another tab, to follow the link.
      if (opened) clicked()
      opened = true
    }
    source.onmessage = (e) => {
      const said = JSON.parse(e.data)
      heard.push({ second: now(), clicks: said.clicks, bots: said.bots })
      events = [...said.links.slice(0, 8).map((/** @type {any} */ l) => ({ at: said.at, code: l.code, clicks: l.clicks })), ...events].slice(0, 8)
      changed()
      clicked()
    }
    source.onerror = () => {
      // Whoever is cut off is connected again by the browser; whoever is refused is not.
      if (source?.readyState !== EventSource.CLOSED) return
      source = undefined
      busy = true
      retry = window.setTimeout(open, pause)
      pause = Math.min(60_000, 2 * pause)
      changed()
    }
  }
  const shut = () => {
    window.clearTimeout(retry)
    source?.close()
    source = undefined
  }
  const seen = () => (document.hidden ? shut() : open())
  const now = () => Math.floor(Date.now() / 1000)
  document.addEventListener('visibilitychange', seen)
  // The minute passes while nobody clicks.
  const passing = window.setInterval(() => {
    const before = heard.length
    if (before > 0) changed()
    heard = heard.filter((h) => h.second > now() - minute)
    if (before > 0 && heard.length === 0) changed()
  }, 1000)
  open()

  return {
    state() {
      const seconds = new Array(minute).fill(0)
      let clicks = 0, bots = 0
      for (const h of heard) {
        const i = minute - 1 - (now() - h.second)
        if (i < 0) continue
        seconds[i] += h.clicks + h.bots
        clicks += h.clicks
        bots += h.bots
      }
      return { on: wanted, busy, clicks, bots, seconds, events }
    },
    toggle() {
      wanted = !wanted
      busy = false
      if (wanted) open()
      else shut()
      changed()
    },
    move(next) {
      params = next
      heard = []
      events = []
      shut()
      open()
    },
    close() {
      document.removeEventListener('visibilitychange', seen)
      window.clearInterval(passing)
      shut()
    },
  }
}
