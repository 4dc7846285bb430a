"""What tests ask of the browser of the fixture ``browser``."""

from __future__ import annotations

import json
from typing import Any

_LOGS = ('browser', 'performance')
_COLORS = 'const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]'


def show(browser: Any, address: str) -> None:
    """Opens a page; what was written down about those before is dropped."""
    for log in _LOGS:
        browser.get_log(log)
    browser.get(address)


def requested(browser: Any) -> list[str]:
    """What the browser asked for since this was last read, but for what stands in the address itself."""
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    urls = [message['params']['request']['url'] for message in messages
            if message['method'] == 'Network.requestWillBeSent']
    return [url for url in urls if not url.startswith('data:')]


def emulate(browser: Any, width: int = 1200, scheme: str = 'light') -> None:
    """Makes the screen of a browser one of some width, in pixels, that asks for a ``'light'`` or ``'dark'`` page."""
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width < 600})
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia',
                            {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})


def check_width(browser: Any, width: int) -> None:
    """Asserts that the page has no need to be moved sideways on a screen of this width."""
    emulate(browser, width)
    assert browser.execute_script('return document.documentElement.scrollWidth') <= width


def check_dark_mode(browser: Any) -> None:
    """Asserts that the page is dark on light or light on dark, as it is asked to; 765 is white."""
    brightness = {}
    for scheme in ('light', 'dark'):
        emulate(browser, scheme=scheme)
        brightness[scheme] = [sum(map(int, color[4:-1].split(','))) for color in browser.execute_script(_COLORS)]
    background, text = brightness['light']
    assert background > 600 > 150 > text
    background, text = brightness['dark']
    assert background < 150 < 600 < text
