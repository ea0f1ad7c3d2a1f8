"""Django Channels with channels_redis; every consumer joins one group."""

from __future__ import annotations

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

BACKEND = os.environ.get("CHANNELS_BACKEND", "channels_redis.pubsub.RedisPubSubChannelLayer")
settings.configure(
    SECRET_KEY="for the benchmark",
    CHANNEL_LAYERS={"default": {"BACKEND": BACKEND, "CONFIG": {"hosts": [os.environ["REDIS_URL"]]}}},
)
django.setup()


class Listener(AsyncWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("bench", self.channel_name)
        await self.accept()
        await self.send(text_data="ready")

    async def bench(self, event):
        await self.send(text_data=event["text"])


app = ProtocolTypeRouter({"websocket": Listener.as_asgi()})
