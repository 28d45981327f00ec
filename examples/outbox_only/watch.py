"""Example of a consumer without Relaybox: print the first event on the topic."""

import json
import os

from confluent_kafka import Consumer

consumer = Consumer(
    {
        "bootstrap.servers": f"{os.environ['KAFKA_HOST']}:{os.environ['KAFKA_PORT']}",
        "group.id": "watch",
        "auto.offset.reset": "earliest",
    }
)
consumer.subscribe(["domain-events"])
while (message := consumer.poll(1.0)) is None or message.error():
    pass
headers = {name: value.decode() for name, value in message.headers()}
print(headers["ce_type"], json.loads(message.value())["payload"], flush=True)
consumer.close()
