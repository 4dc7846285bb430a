"""The web application: a start page, a page per user and a page per item. They hold no script and fetch nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from dgmrec_pyg.demo.bars import WIDTH, make_bars
from dgmrec_pyg.demo.explorer import Explorer
from dgmrec_pyg.demo.views import Recommendation, percent
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.inference import FinishedRun
from dgmrec_pyg.pages import content_hash, template_environment

LOOPBACK = ('127.0.0.1', 'localhost', '[::1]', '[')  # Starlette before 1.8 cuts '[::1]' off at its first colon.


class Pages:
    """Renders the pages of a run.

    Args:
        run (FinishedRun): The run.
    """

    def __init__(self, run: FinishedRun) -> None:
        self.explorer = Explorer(run)
        self._templates = template_environment('dgmrec_pyg.demo')
        self._templates.globals.update(user_url=user_url, item_url=item_url, bar_width=WIDTH, run=run,
                                       parts=self.explorer.parts)
        style = content_hash(self._templates.get_template('page.css').render())
        policy = ["default-src 'none'", f"style-src '{style}'", 'img-src data:', "form-action 'self'",
                  "base-uri 'none'", "frame-ancestors 'none'"]
        self._headers = {'Content-Security-Policy': '; '.join(policy), 'X-Content-Type-Options': 'nosniff',
                         'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store'}

    def start(self, request: Request) -> Response:
        """Answers with the start page."""
        return self._page('start.html', view=self.explorer.start())

    def user(self, request: Request) -> Response:
        """Answers with the page of the user whose id is asked for."""
        wanted = request.query_params.get('id', '').strip()
        if not wanted:
            return RedirectResponse('/', 303)
        try:
            number = int(self.explorer.run.users([wanted]))
        except UserError as error:
            return self._page('message.html', 404, title='No such user', line=str(error), asked_user=wanted,
                              found=[(one, user_url(one)) for one in self.explorer.find_users(wanted)])
        view = self.explorer.user(number)
        return self._page('user.html', view=view, asked_user=wanted, decimals=_decimals(view.recommendations),
                          chart=_chart(view.recommendations, self.explorer))

    def item(self, request: Request) -> Response:
        """Answers with the page of the item whose id or name is asked for."""
        wanted = request.query_params.get('id', '').strip()
        if not wanted:
            return RedirectResponse('/', 303)
        try:
            number = int(self.explorer.run.items([wanted]))
        except UserError as error:
            return self._page('message.html', 404, title='No such item', line=str(error), asked_item=wanted,
                              found=[(f'{one.title} ({one.id})' if one.name else one.id, item_url(one.id))
                                     for one in self.explorer.find_items(wanted)])
        view = self.explorer.item(number)
        return self._page('item.html', view=view, asked_item=wanted)

    def error(self, request: Request, error: Exception) -> Response:
        """Answers where there is no such page."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        line = f'{request.url.path} is no page of this run'
        return self._page('message.html', status, title='No such page', line=line, found=[])

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        asked = {'asked_user': '', 'asked_item': '', 'failed': status != 200, **values}
        return HTMLResponse(self._templates.get_template(template).render(asked), status, headers=self._headers)


def build_app(run: FinishedRun, hosts: Sequence[str] = LOOPBACK) -> Starlette:
    """Builds the application, for any ASGI server.

    Args:
        run (FinishedRun): The run, see :func:`~dgmrec_pyg.inference.load_run`.
        hosts (Sequence[str]): The names of this machine that requests may ask for, ``'*'`` for any: otherwise a
            stranger's page could reach this one under a name of its own. (default: those of the machine itself)
    """
    pages = Pages(run)
    routes = [Route('/', pages.start), Route('/user', pages.user), Route('/item', pages.item)]
    return Starlette(routes=routes, exception_handlers={HTTPException: pages.error},
                     middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)])


def user_url(one: str) -> str:
    """Returns the address of a user's page."""
    return f'/user?{urlencode({"id": one})}'


def item_url(one: str) -> str:
    """Returns the address of an item's page."""
    return f'/item?{urlencode({"id": one})}'


def _decimals(recommendations: Sequence[Recommendation]) -> int:
    """How many decimals give the largest score four digits."""
    largest = max((abs(one.score) for one in recommendations), default=0.0)
    return min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 0


def _chart(recommendations: Sequence[Recommendation], explorer: Explorer) -> Mapping[str, Any] | None:
    """Two bars for each recommendation: all parts of the score, and those by features on a scale of their own."""
    if not explorer.parts or not recommendations:
        return None
    by_features = [part.key for part in explorer.parts if part.modality]
    whole = make_bars([one.parts for one in recommendations])
    features = make_bars([{key: one.parts[key] for key in by_features} for one in recommendations])
    total = sum(one.score for one in recommendations)
    kinds = {kind: sum(one.parts[part.key] for one in recommendations for part in explorer.parts if part.kind == kind)
             for kind in ('collaborative', 'general', 'specific')}
    positive = all(one.score > 0 for one in recommendations)
    return {'whole': whole, 'features': features, 'enlarged': features.scale / whole.scale if whole.scale else 1.0,
            'shares': {kind: percent(value / total) for kind, value in kinds.items()} if positive else None,
            'parts': {part.key: part for part in explorer.parts}}
