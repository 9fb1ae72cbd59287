// The QR code of a link in a dialog: to look at, to design and to save.
//
//   showQR(link)   {code, short_url}

import { t } from '../texts.js'
import { copyButton, dialog, html, icon, nothing } from '../ui.js'

/** @param {{code: string, short_url: string}} link */
export function showQR(link) {
  const path = `/${encodeURIComponent(link.code)}/qr`
  let size = 512, margin = 4, color = '#000000', background = '#ffffff'
  let again = () => {}
  let timer = 0

  /** @param {string} format @param {number} pixels */
  const address = (format, pixels) => `${path}?${new URLSearchParams({ format, size: String(pixels), margin: String(margin), color: color.slice(1), background: background.slice(1) })}`
  let shown = address('svg', 512)

  /** @param {(value: string) => void} set */
  const on = (set) => (/** @type {Event} */ e) => {
    set(/** @type {HTMLInputElement} */ (e.target).value)
    again()
    // Somebody who drags over colours asks for the last one only.
    window.clearTimeout(timer)
    timer = window.setTimeout(() => {
      shown = address('svg', 512)
      again()
    }, 120)
  }

  return dialog(() => {
    const warning = margin < 4 ? t('qr.narrow') : contrast(color, background) < 3 ? t('qr.pale') : luminance(color) > luminance(background) ? t('qr.inverted') : null
    return html`
    <div class="qr-designer">
      <div class="qr">
        <img src=${shown} width="256" height="256" alt=${t('qr.alt', { url: link.short_url })}>
        <p class="row"><span class="mono">${link.short_url}</span>${copyButton(link.short_url, t('link.copy'))}</p>
        <p class="muted small">${t('qr.hint')}</p>
      </div>
      <div class="stack">
        <div class="qr-colors">
          <label>${t('qr.color')}<input type="color" .value=${color} @input=${on((v) => (color = v))}></label>
          <label>${t('qr.background')}<input type="color" .value=${background} @input=${on((v) => (background = v))}></label>
        </div>
        <div class="qr-slider"><label for="qr-margin">${t('qr.margin')}</label><output for="qr-margin" class="muted">${t('qr.modules', { n: margin })}</output>
          <input type="range" id="qr-margin" min="0" max="16" .value=${String(margin)} @input=${on((v) => (margin = Number(v)))}></div>
        <div class="qr-slider"><label for="qr-size">${t('qr.size')}</label><output for="qr-size" class="muted">${t('qr.pixels', { n: size })}</output>
          <input type="range" id="qr-size" min="128" max="1024" step="32" .value=${String(size)} @input=${on((v) => (size = Number(v)))}></div>
        <p class="qr-warning small" role="status">${warning ? html`${icon('warn')}<span>${warning}</span>` : nothing}</p>
        <div class="row">
          <a class="button button-primary" href=${address('svg', size)} download="${link.code}.svg">${icon('download')}SVG</a>
          <a class="button button-primary" href=${address('png', size)} download="${link.code}.png">${icon('download')}PNG</a>
        </div>
      </div>
    </div>`
  }, { title: t('qr.title', { code: link.code }), wide: true, on: (draw) => (again = draw) })
}

/** Relative luminance as WCAG 2 defines it, 0 to 1. @param {string} color #rrggbb */
function luminance(color) {
  const [r, g, b] = [1, 3, 5].map((i) => {
    const c = parseInt(color.slice(i, i + 2), 16) / 255
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

/** @param {string} a @param {string} b @returns {number} 1 to 21 */
function contrast(a, b) {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p)
  return (x + 0.05) / (y + 0.05)
}
