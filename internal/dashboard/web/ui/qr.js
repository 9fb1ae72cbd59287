// The QR code of a link in a dialog, to look at and to save.
//
//   showQR(link)   {code, short_url}

import { t } from '../texts.js'
import { copyButton, dialog, html, icon } from '../ui.js'

/** @param {{code: string, short_url: string}} link */
export function showQR(link) {
  const path = `/${encodeURIComponent(link.code)}/qr`
  return dialog(() => html`
    <div class="qr">
      <img src="${path}?size=512" width="256" height="256" alt=${t('qr.alt', { url: link.short_url })}>
      <p class="row"><span class="mono">${link.short_url}</span>${copyButton(link.short_url, t('link.copy'))}</p>
      <p class="muted small">${t('qr.hint')}</p>
      <div class="row">
        <a class="button" href="${path}?size=1024" download="${link.code}.svg">${icon('download')}SVG</a>
        <a class="button" href="${path}?format=png&size=1024" download="${link.code}.png">${icon('download')}PNG</a>
      </div>
    </div>`, { title: t('qr.title', { code: link.code }) })
}
