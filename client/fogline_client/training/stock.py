"""The ClientApp of ``deploy/flower``: a recipe on a stock SuperNode, by the app that Fogline's own agents run."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flwr.clientapp import ClientApp

from fogline_client.training.app import build_app
from fogline_shared import flower
from fogline_shared.flower import Message
from fogline_shared.recipe import load_recipe

if TYPE_CHECKING:
    from flwr.app import Context

app = ClientApp()


@cache
def _app_of(recipe: str) -> ClientApp:
    return build_app(load_recipe(recipe))


@app.query()
@app.train()
@app.evaluate()
def answer(message: Message, context: Context) -> Message:
    """What the recipe named in the run's configuration answers. The node's configuration is the recipe's device options."""
    reply = _app_of(str(context.run_config["recipe"]))(message, context)
    return Message(flower.plain(reply.content), reply_to=message)
