"""The objects that the API and the consumers of the bank share."""

from accounts import accounts
from relaybox.http import Backbone

backbone = Backbone.from_environment([accounts], service="bank")
