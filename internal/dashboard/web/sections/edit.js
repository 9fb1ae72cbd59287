// A new link, and a change of one: the same form. What is typed is kept until it is stored. A change names the
// version that it was made of; where somebody else was faster, both versions are shown and one chooses.

import { Away, Problem } from '../api.js'
import { locale } from '../texts.js'
import { bare, chip, copy, copyButton, explain, field, focus, html, icon, nothing, render, state } from '../ui.js'
import { fromWall, later, toWall } from '../ui/when.js'
import { target } from './home.js'

/** @typedef {import('../app.js').App} App
 * @typedef {import('../ui.js').Link} Link
 * @typedef {{url: string, code: string, title: string, tags: string[], tag: string, expires: string, visits: string, status: string,
 *   forward: boolean, disabled: boolean}} Values  as they stand in the form; tag is what is typed and is no tag yet */

const utm = ['source', 'medium', 'campaign', 'term', 'content']

/** @param {App} app @param {HTMLElement} root @param {import('../app.js').Route} route */
export default async function open(app, root, route) {
  const { api, t, drafts } = app
  const signal = app.signal
  const code = route.params.code
  const name = code ? `edit:${code}` : 'new'

  /** The link as it was read. @type {Link | null} */
  let base = null
  /** @type {string | null} */
  let etag = null
  /** @type {Link | null} */
  let done = null
  let copied = false
  let busy = false
  /** @type {{field: string | null, text: string} | null} */
  let error = null
  /** @type {{kind: 'checking' | 'free' | 'taken' | 'wrong' | 'unknown', text?: string} | null} */
  let verdict = null
  let asking = new AbortController()
  let timer = 0

  const draft = drafts.get(name)
  if (code) {
    const read = await api.call('GET', `/links/${encodeURIComponent(code)}`, { signal })
    ;({ data: base, etag } = draft?.base ? { data: draft.base, etag: draft.etag } : read)
  }
  const { ttl } = app.settings.defaults
  const fresh = () => (base ? toValues(base)
    : { ...toValues(app.settings.defaults), expires: ttl ? later(ttl / 86400) : '', url: route.query.get('url') ?? '' })
  /** @type {Values} */
  let v = { ...fresh(), ...draft?.values, ...(code ? {} : pick(draft)) }
  let restored = Boolean(code && draft)
  const opened = new Set(groups().filter((g) => g.used()).map((g) => g.name))

  /** @param {Partial<Values>} change */
  function set(change) {
    Object.assign(v, change)
    if (error && (!error.field || Object.keys(change).some((k) => fieldOf[k] === error?.field))) error = null
    drafts.set(name, code ? { values: v, base, etag } : v)
    draw()
  }

  function check() {
    asking.abort()
    clearTimeout(timer)
    verdict = null
    if (v.code === '') return
    verdict = { kind: 'checking' }
    const mine = (asking = new AbortController())
    timer = setTimeout(async () => {
      try {
        const { data } = await api.call('GET', `/codes/${encodeURIComponent(v.code)}`, { signal: mine.signal })
        verdict = { kind: data.free ? 'free' : 'taken' }
      } catch (err) {
        if (mine.signal.aborted) return
        verdict = err instanceof Problem && err.status === 400 ? { kind: 'wrong', text: err.detail } : { kind: 'unknown' }
      }
      if (!signal.aborted) draw()
    }, 150)
  }

  /** @param {Event} e */
  async function submit(e) {
    e.preventDefault()
    if (busy) return
    addTag()
    const url = target(v.url)
    if (url === '') return wrong('url', t('edit.no_target'))
    if (v.url !== url) v.url = url
    if (base) return save(changes(toValues(base), v))
    busy = true
    error = null
    draw()
    const answer = api.create(Object.fromEntries(Object.entries(toBody(v)).filter(([, x]) => x !== null)))
    const copying = copy(answer.then((link) => link.short_url)).catch(() => false)
    try {
      done = await answer
      copied = await copying
      drafts.drop(name)
      app.announce(`${t(copied ? 'home.copied' : 'home.ready')} ${done?.short_url}`)
    } catch (err) {
      fail(err)
    } finally {
      busy = false
      draw()
      if (done) focus(root, '.made-url')
    }
  }

  /** @param {Record<string, any>} body */
  async function save(body) {
    busy = true
    error = null
    draw()
    try {
      if (Object.keys(body).length > 0) {
        const r = await api.call('PATCH', `/links/${encodeURIComponent(code)}`, { body, ifMatch: etag })
        base = r.data
        etag = r.etag
        app.toast(t('edit.saved'), { kind: 'good' })
      }
      drafts.drop(name)
      restored = false
      app.go(`/links/${encodeURIComponent(code)}`)
    } catch (err) {
      if (err instanceof Problem && err.status === 412) await settle()
      else fail(err)
    } finally {
      busy = false
      draw()
    }
  }

  /** @param {unknown} err */
  function fail(err) {
    const at = err instanceof Problem ? err.field : null
    if (err instanceof Problem && err.code === 'code_taken') verdict = { kind: 'taken' }
    wrong(at, err instanceof Away ? t('edit.away') : explain(err))
  }

  /** @param {string | null} at @param {string} text */
  function wrong(at, text) {
    error = { field: at, text }
    const group = groups().find((g) => g.fields.includes(at ?? ''))
    if (group) opened.add(group.name)
    draw()
    focus(root, at ? `#f-${at}` : '.form-error')
  }

  /** Somebody else changed the link meanwhile: shows both versions, field by field. */
  async function settle() {
    let now
    try {
      now = await api.call('GET', `/links/${encodeURIComponent(code)}`, { signal })
    } catch (err) {
      return fail(err)
    }
    const was = toValues(/** @type {Link} */ (base))
    const theirs = toValues(now.data)
    const differing = /** @type {(keyof Values)[]} */ (Object.keys(fieldOf)).filter((k) => say(k, v) !== say(k, theirs))
    // Where only one of the two changed a field, that one is meant.
    const mine = new Set(differing.filter((k) => say(k, v) !== say(k, was)))
    const choice = differing.length === 0 ? true : await app.dialog((/** @type {(v?: boolean) => void} */ close) => html`
      <form class="stack" @submit=${(/** @type {Event} */ e) => { e.preventDefault(); close(true) }}>
        <p>${t('edit.race_text')}</p>
        <div class="versions" role="group" aria-label=${t('edit.race')}>
          ${differing.map((k) => html`
            <fieldset class="version">
              <legend>${t(`edit.${k}`)}</legend>
              ${[true, false].map((own) => html`
                <label class="version-side">
                  <input type="radio" name=${k} .checked=${mine.has(k) === own} @change=${() => (own ? mine.add(k) : mine.delete(k))}>
                  <span><span class="muted small">${t(own ? 'edit.yours' : 'edit.theirs')}</span><br><span class="version-value">${say(k, own ? v : theirs) || t('edit.nothing')}</span></span>
                </label>`)}
            </fieldset>`)}
        </div>
        <div class="actions">
          <button type="button" class="button" @click=${() => close()}>${t('edit.back')}</button>
          <button class="button button-primary">${t('edit.settle')}</button>
        </div>
      </form>`, { title: t('edit.race'), wide: true })
    if (!choice) return
    base = now.data
    etag = now.etag
    v = { ...theirs, ...Object.fromEntries([...mine].map((k) => [k, v[k]])) }
    drafts.set(name, { values: v, base, etag })
    await save(changes(theirs, v))
  }

  /** A field in words. @param {keyof Values} k @param {Values} x @returns {string} */
  function say(k, x) {
    switch (k) {
      case 'tags': return x.tags.join(', ')
      case 'expires': return x.expires && app.format.dateTime(/** @type {string} */ (fromWall(x.expires)))
      case 'visits': return x.visits && app.format.n(Number(x.visits))
      case 'status': return x.status || '302'
      case 'forward': return t(x.forward ? 'edit.yes' : 'edit.no')
      case 'disabled': return t(x.disabled ? 'edit.yes' : 'edit.no')
      default: return x[k]
    }
  }

  /** The folded parts of the form: what their summary says, and which fields of the API they have.
   * @returns {{name: string, fields: string[], used: () => boolean, sum: () => string, piece: () => import('../ui.js').Piece}[]} */
  function groups() {
    return [
      { name: 'about', fields: ['title', 'tags'], used: () => v.title !== '' || v.tags.length > 0, sum: () => [v.title, ...v.tags].filter(Boolean).join(' · '), piece: about },
      { name: 'end', fields: ['expires_at', 'ttl', 'max_visits'], used: () => v.expires !== '' || v.visits !== '',
        sum: () => [v.expires && say('expires', v), v.visits && t('edit.n_visits', { n: Number(v.visits) })].filter(Boolean).join(' · '), piece: end },
      { name: 'way', fields: ['status', 'forward_query'], used: () => v.status !== '' || v.forward,
        sum: () => [v.status && say('status', v), v.forward && t('edit.forwards')].filter(Boolean).join(' · '), piece: way },
      { name: 'utm', fields: [], used: () => utm.some((u) => getUTM(v.url, u)), sum: () => utm.map((u) => getUTM(v.url, u)).filter(Boolean).join(' · '), piece: campaign },
    ]
  }

  function about() {
    return html`
      ${field({ id: 'f-title', label: t('edit.title'), hint: t('edit.title_hint'), error: at('title'),
        control: html`<input id="f-title" maxlength="255" autocomplete="off" .value=${v.title} aria-describedby="f-title-about" aria-invalid=${at('title') ? 'true' : nothing} @input=${on('title')}>` })}
      ${field({ id: 'f-tags', label: t('edit.tags'), hint: t('edit.tags_hint'), error: at('tags'),
        control: html`
          ${v.tags.length > 0 ? html`<div class="row">${v.tags.map((tag) => chip(tag, { remove: () => set({ tags: v.tags.filter((x) => x !== tag) }) }))}</div>` : nothing}
          <input id="f-tags" maxlength="50" autocomplete="off" ?disabled=${v.tags.length >= 10} .value=${v.tag} aria-describedby="f-tags-about" aria-invalid=${at('tags') ? 'true' : nothing}
            @input=${(/** @type {Event} */ e) => { set({ tag: value(e) }); if (v.tag.includes(',')) addTag() }}
            @blur=${addTag} @keydown=${tagKey}>` })}`
  }

  /** @param {KeyboardEvent} e */
  function tagKey(e) {
    if (e.key === 'Enter' && v.tag.trim() && !e.isComposing && !e.ctrlKey && !e.metaKey) {
      e.preventDefault()
      addTag()
    } else if (e.key === 'Backspace' && v.tag === '' && v.tags.length > 0) {
      set({ tags: v.tags.slice(0, -1) })
    }
  }

  function addTag() {
    const added = v.tag.split(',').map((s) => s.trim()).filter(Boolean)
    if (added.length > 0 || v.tag) set({ tags: [...new Set([...v.tags, ...added])].slice(0, 10), tag: '' })
  }

  function end() {
    return html`
      ${field({ id: 'f-expires_at', label: t('edit.expires'), hint: t('edit.zone', { zone: locale().timeZone }), error: at('expires_at'),
        control: html`<div class="input-group wrap">
          <input id="f-expires_at" type="datetime-local" .value=${v.expires} aria-describedby="f-expires_at-about" aria-invalid=${at('expires_at') ? 'true' : nothing} @input=${on('expires')}>
          <span class="row">${[1, 7, 30].map((d) => html`<button type="button" class="button button-small" @click=${() => set({ expires: later(d) })}>${t('edit.in_days', { n: d })}</button>`)}
          <button type="button" class="button button-small" ?disabled=${v.expires === ''} @click=${() => set({ expires: '' })}>${t('edit.never')}</button></span></div>` })}
      ${field({ id: 'f-max_visits', label: t('edit.visits'), error: at('max_visits'),
        hint: base?.visits_left !== undefined ? t('edit.visits_left', { n: base.visits_left }) : t('edit.visits_hint'),
        control: html`<input id="f-max_visits" type="number" min="1" max="1000000000" step="1" inputmode="numeric" .value=${v.visits} aria-describedby="f-max_visits-about"
          aria-invalid=${at('max_visits') ? 'true' : nothing} @input=${on('visits')}>` })}`
  }

  function way() {
    return html`
      ${field({ id: 'f-status', label: t('edit.status'), error: at('status'), hint: t('edit.status_hint'),
        control: html`<select id="f-status" aria-describedby="f-status-about" @change=${on('status')}>
          ${['', '307', '301', '308'].map((s) => html`<option value=${s} ?selected=${v.status === s}>${t(`edit.status_${s || 302}`)}</option>`)}</select>` })}
      <label class="check"><input type="checkbox" .checked=${v.forward} @change=${(/** @type {Event} */ e) => set({ forward: checked(e) })}><span>${t('edit.forward')}</span></label>
      <p class="field-about">${t('edit.forward_hint')}</p>`
  }

  function campaign() {
    return html`
      <p class="field-about">${t('edit.utm_hint')}</p>
      <div class="two">
        ${utm.map((u) => field({ id: `f-utm-${u}`, label: `utm_${u}`,
          control: html`<input id="f-utm-${u}" autocomplete="off" autocapitalize="off" spellcheck="false" .value=${getUTM(v.url, u)} ?disabled=${v.url.trim() === ''} aria-describedby="f-utm-${u}-about"
            @input=${(/** @type {Event} */ e) => set({ url: setUTM(v.url, u, value(e)) })}>` }))}
      </div>`
  }

  /** @param {'url' | 'code' | 'title' | 'expires' | 'visits' | 'status'} k */
  const on = (k) => (/** @type {Event} */ e) => set({ [k]: value(e) })
  /** @param {string} f */
  const at = (f) => (error?.field === f ? error.text : null)

  function codeHint() {
    switch (verdict?.kind) {
      case 'checking': return html`<span>${t('edit.code_checking')}</span>`
      case 'free': return html`<span class="good">${icon('check')} ${t('edit.code_free')}</span>`
      case 'taken': return html`<span class="error">${t('edit.code_taken')}</span>`
      case 'wrong': return html`<span class="error">${verdict.text}</span>`
      case 'unknown': return html`<span>${t('edit.code_unknown')}</span>`
      default: return t('edit.code_hint')
    }
  }

  function draw() {
    if (signal.aborted) return
    if (done) {
      render(result(done), root)
      return
    }
    render(html`
      <div class="section-head"><h1 class="edit-title">${base ? html`${t('edit.change')} <span class="mono">${code}</span>` : t('nav.new')}</h1>${base ? state(base) : nothing}</div>
      <form class="edit" novalidate @submit=${submit} @keydown=${(/** @type {KeyboardEvent} */ e) => { if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) submit(e) }}>
        ${restored ? html`<div class="note">${icon('info')}<p>${t('edit.restored')}</p><button type="button" class="button button-small" @click=${discard}>${t('edit.discard')}</button></div>` : nothing}
        <div class="card stack">
          ${field({ id: 'f-url', label: t('edit.url'), error: at('url'), hint: length(v.url),
            control: html`<input id="f-url" type="url" inputmode="url" autocomplete="off" autocapitalize="off" spellcheck="false" ?autofocus=${!code} placeholder="https://"
              .value=${v.url} aria-describedby="f-url-about" aria-invalid=${at('url') ? 'true' : nothing} @input=${on('url')}>` })}
          ${base ? nothing : field({ id: 'f-code', label: t('edit.code'), optional: true, error: at('code'), hint: codeHint(),
            control: html`<div class="prefixed"><span class="muted" aria-hidden="true">${location.host}/</span>
              <input id="f-code" autocomplete="off" autocapitalize="off" spellcheck="false" maxlength="64" .value=${v.code} aria-describedby="f-code-about"
                aria-invalid=${at('code') || verdict?.kind === 'taken' || verdict?.kind === 'wrong' ? 'true' : nothing}
                @input=${(/** @type {Event} */ e) => { v.code = value(e).trim(); check(); set({}) }}></div>` })}
          ${base ? html`<label class="check"><input type="checkbox" .checked=${v.disabled} @change=${(/** @type {Event} */ e) => set({ disabled: checked(e) })}><span>${t('edit.disable')}</span></label>` : nothing}
        </div>
        <div class="card folds">
          ${groups().map((g) => html`
            <details class="fold" ?open=${opened.has(g.name)} @toggle=${(/** @type {Event} */ e) => { /** @type {HTMLDetailsElement} */ (e.currentTarget).open ? opened.add(g.name) : opened.delete(g.name) }}>
              <summary>${icon('right')}<span class="fold-name">${t(`edit.${g.name}`)}</span><span class="fold-sum muted small ellipsis">${g.sum()}</span></summary>
              <div class="stack">${g.piece()}</div>
            </details>`)}
        </div>
        ${error && !groups().some((g) => g.fields.includes(error?.field ?? '')) && error.field !== 'url' && error.field !== 'code'
          ? html`<div class="trouble form-error" role="alert" tabindex="-1">${icon('warn')}<p>${error.text}</p></div>` : nothing}
        <div class="actions">
          <a class="button" href=${base ? `/dashboard/links/${code}` : '/dashboard/'} @click=${base ? () => drafts.drop(name) : nothing}>${t('ui.cancel')}</a>
          <button class="button button-primary" ?disabled=${busy}>${busy ? t('edit.busy') : base ? t('ui.save') : t('edit.create')}</button>
        </div>
      </form>`, root)
  }

  function discard() {
    drafts.drop(name)
    app.go(location.pathname.slice('/dashboard'.length))
  }

  /** @param {Link} link */
  const result = (link) => html`
    <div class="section-head"><h1>${t('edit.made')}</h1></div>
    <div class="card stack result">
      <span class="state state-good">${icon('check')}${copied ? t('ui.copied') : t('home.made')}</span>
      <a class="made-url" href=${link.short_url} target="_blank" rel="noopener">${bare(link.short_url)}</a>
      <p class="muted break">${link.url}</p>
      <img class="result-qr" src="/${encodeURIComponent(link.code)}/qr" width="160" height="160" alt=${t('qr.alt', { url: link.short_url })}>
      <div class="row">
        ${copyButton(link.short_url, t('link.copy'))}
        <button type="button" class="button" @click=${async () => (await import('../ui/qr.js')).showQR(link)}>${icon('qr')}${t('link.qr')}</button>
        <a class="button" href=${link.short_url} target="_blank" rel="noopener">${icon('open')}${t('link.open')}</a>
        ${app.can('read') ? html`<a class="button" href="/dashboard/links/${link.code}">${icon('chart')}${t('link.numbers')}</a>` : nothing}
        <button type="button" class="button button-primary" @click=${() => app.go('/new')}>${icon('plus')}${t('edit.another')}</button>
      </div>
    </div>`

  if (v.code && !base) check()
  draw()
  return {
    back() {
      if (v.code && !base) check()
      draw()
    },
  }

  /** @param {string} url */
  function length(url) {
    const bytes = new TextEncoder().encode(url).length
    return bytes > 1800 ? t('edit.length', { n: bytes, most: 2048 }) : nothing
  }
}

/** Which field of the API each value is. @type {Record<string, string>} */
const fieldOf = { url: 'url', code: 'code', title: 'title', tags: 'tags', expires: 'expires_at', visits: 'max_visits', status: 'status', forward: 'forward_query', disabled: 'disabled' }

/** @param {Event} e */
const value = (e) => /** @type {HTMLInputElement} */ (e.currentTarget).value
/** @param {Event} e */
const checked = (e) => /** @type {HTMLInputElement} */ (e.currentTarget).checked

/** @param {any} draft @returns {Partial<Values>} */
const pick = (draft) => (draft && typeof draft === 'object' ? draft : {})

/** @param {Partial<Link>} link @returns {Values} */
function toValues(link) {
  return {
    url: link.url ?? '', code: link.code ?? '', title: link.title ?? '', tags: link.tags ?? [], tag: '',
    expires: toWall(link.expires_at), visits: link.max_visits ? String(link.max_visits) : '',
    status: link.status && link.status !== 302 ? String(link.status) : '', forward: link.forward_query ?? false, disabled: link.disabled ?? false,
  }
}

/** @param {Values} v @returns {Record<string, any>} null for what is not there */
function toBody(v) {
  return {
    url: v.url, code: v.code || null, title: v.title.trim() || null, tags: v.tags.length > 0 ? v.tags : null,
    expires_at: fromWall(v.expires), max_visits: v.visits ? Number(v.visits) : null, status: v.status ? Number(v.status) : null,
    forward_query: v.forward || null, disabled: v.disabled || null,
  }
}

/** Only what is different: a field that one did not touch is left to others. @param {Values} was @param {Values} is */
function changes(was, is) {
  const before = toBody(was)
  return Object.fromEntries(Object.entries(toBody(is)).filter(([k, x]) => k !== 'code' && JSON.stringify(x) !== JSON.stringify(before[k])))
}

// The rest of the query stays byte for byte: some targets are signed.

/** @param {string} url */
function parts(url) {
  const [, path, , query = '', hash] = /** @type {RegExpExecArray} */ (/^([^?#]*)(\?([^#]*))?(#.*)?$/s.exec(url))
  return { path, query: query.split('&').filter(Boolean), hash: hash ?? '' }
}

/** @param {string} url @param {string} name */
function getUTM(url, name) {
  const pair = parts(url).query.find((p) => p.startsWith(`utm_${name}=`))
  if (!pair) return ''
  try {
    return decodeURIComponent(pair.slice(name.length + 5).replaceAll('+', ' '))
  } catch {
    return pair.slice(name.length + 5)
  }
}

/** @param {string} url @param {string} name @param {string} to */
function setUTM(url, name, to) {
  const { path, query, hash } = parts(url)
  const i = query.findIndex((p) => p.startsWith(`utm_${name}=`))
  const pair = to === '' ? [] : [`utm_${name}=${encodeURIComponent(to)}`]
  query.splice(i < 0 ? query.length : i, i < 0 ? 0 : 1, ...pair)
  return path + (query.length > 0 ? `?${query.join('&')}` : '') + hash
}
