"""Key-value buckets on JetStream, as several actors keep something in."""

import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue
from trunkline_events.codes import OTHER_CONFIGURATION


async def open_bucket(js: JetStreamContext, config: api.KeyValueConfig) -> KeyValue:
    """Make sure the bucket exists. One that is there with another configuration, an operator's, is used as it is."""
    try:
        return await js.create_key_value(config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != OTHER_CONFIGURATION:
            raise
        return await js.key_value(config.bucket)
