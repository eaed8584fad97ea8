"""Subject -> handler: `kalends.rpc.availability.<method>`."""

from kalends_availability.handlers.context import Context
from kalends_availability.handlers.kinds import KINDS
from kalends_availability.handlers.quotes import Quotes
from kalends_availability.handlers.slots import Slots
from kalends_availability.handlers.things import Things
from kalends_availability.store.answers import Answers
from kalends_shared.rpc import Handler


def handlers(ctx: Context, answers: Answers) -> dict[str, Handler]:
    """Every method by its name, the public ones as contracts.endpoints names them."""
    slots, quotes = Slots(ctx, answers), Quotes(ctx)
    found: dict[str, Handler] = {
        "availability": slots.availability,
        "query_availability": slots.query,
        "explain": slots.explain,
        "quote": quotes.quote,
        "alternatives": quotes.alternatives,
    }
    for kind in KINDS:
        things = Things(ctx, kind)
        many = kind.path.strip("/").replace("-", "_")
        found |= {
            f"create_{kind.name}": things.create,
            f"get_{kind.name}": things.get,
            f"list_{many}": things.list,
            f"patch_{kind.name}": things.patch,
            f"delete_{kind.name}": things.delete,
        }
    return found
