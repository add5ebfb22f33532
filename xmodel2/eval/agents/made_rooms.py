"""What may be in the rooms that we make for ALFWorld's engine, in ALFRED's words; which of it is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Room:
    """One kind of room."""

    receptacles: Mapping[str, tuple[int, int]]
    """Fewest and most of each kind."""
    objects: tuple[str, ...]
    lamp: str = ""
    under_lamp: tuple[str, ...] = ()
    """What the lamp may stand on."""


ROOMS: Mapping[str, Room] = MappingProxyType(
    {
        "kitchen": Room(
            {
                "Cabinet": (8, 16),
                "CoffeeMachine": (1, 1),
                "CounterTop": (1, 2),
                "DiningTable": (1, 1),
                "Drawer": (4, 10),
                "Fridge": (1, 1),
                "GarbageCan": (1, 1),
                "Microwave": (1, 1),
                "Shelf": (0, 3),
                "SinkBasin": (1, 1),
                "StoveBurner": (2, 4),
                "Toaster": (1, 1),
            },
            (
                *(
                    "Apple",
                    "Bowl",
                    "Bread",
                    "ButterKnife",
                    "Cup",
                    "DishSponge",
                    "Egg",
                    "Fork",
                    "Kettle",
                    "Knife",
                    "Ladle",
                ),
                *("Lettuce", "Mug", "Pan", "PepperShaker", "Plate", "Pot", "Potato", "SaltShaker", "SoapBottle"),
                *("Spatula", "Spoon", "Tomato", "Vase", "WineBottle"),
            ),
        ),
        "living room": Room(
            {
                "ArmChair": (1, 2),
                "Cabinet": (0, 6),
                "CoffeeTable": (1, 1),
                "Drawer": (4, 10),
                "Dresser": (0, 1),
                "GarbageCan": (1, 1),
                "Safe": (0, 1),
                "Shelf": (2, 8),
                "SideTable": (1, 3),
                "Sofa": (1, 1),
            },
            (
                *(
                    "Book",
                    "Box",
                    "Candle",
                    "CellPhone",
                    "CreditCard",
                    "KeyChain",
                    "Laptop",
                    "Newspaper",
                    "Pillow",
                    "Plate",
                ),
                *("RemoteControl", "Statue", "TissueBox", "Vase", "Watch", "WateringCan"),
            ),
            lamp="FloorLamp",
            under_lamp=("CoffeeTable", "SideTable", "Sofa"),
        ),
        "bedroom": Room(
            {
                "Bed": (1, 1),
                "Desk": (1, 2),
                "Drawer": (5, 12),
                "Dresser": (0, 1),
                "GarbageCan": (1, 1),
                "Safe": (0, 1),
                "Shelf": (3, 9),
                "SideTable": (0, 2),
            },
            (
                *(
                    "AlarmClock",
                    "BaseballBat",
                    "BasketBall",
                    "Book",
                    "Bowl",
                    "CD",
                    "CellPhone",
                    "CreditCard",
                    "KeyChain",
                ),
                *("Laptop", "Mug", "Pen", "Pencil", "Pillow", "TennisRacket"),
            ),
            lamp="DeskLamp",
            under_lamp=("Desk", "Dresser", "Shelf", "SideTable"),
        ),
        "bathroom": Room(
            {
                "BathtubBasin": (0, 1),
                "Cabinet": (4, 9),
                "CounterTop": (1, 1),
                "Drawer": (2, 8),
                "GarbageCan": (1, 1),
                "HandTowelHolder": (1, 2),
                "Shelf": (0, 2),
                "SinkBasin": (1, 2),
                "Toilet": (1, 1),
                "ToiletPaperHanger": (1, 1),
            },
            (
                *("Candle", "Cloth", "DishSponge", "HandTowel", "SoapBar", "SoapBottle", "SprayBottle", "TissueBox"),
                *("ToiletPaper", "ToiletPaperRoll"),
            ),
        ),
    }
)
ROOMS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "put": ("bathroom", "bedroom", "living room", "kitchen"),
        "clean": ("bathroom", "kitchen"),
        "heat": ("kitchen",),
        "cool": ("kitchen",),
        "examine": ("living room", "bedroom"),
        "puttwo": ("bathroom", "bedroom", "living room", "kitchen"),
    }
)
"""Where each kind of task is set, by ReAct's names."""
