"""AWS KMS for tests: a server in this process, keys in it, and credentials that may use some of them.

It prints one line of JSON when it is ready, and ends when its standard input does. Requests must be signed rightly: moto
checks them with botocore's own signer.
"""

import json
import sys

import boto3
import moto.settings
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"


def client(service):
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION, aws_access_key_id="setup",
                        aws_secret_access_key="setup")


kms, iam = client("kms"), client("iam")
names = {}
for name in "first", "second":
    names[name] = kms.create_key()["KeyMetadata"]["Arn"]
kms.create_alias(AliasName="alias/first", TargetKeyId=names["first"])


def user(name, actions):
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(UserName=name, PolicyName="keys", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


users = {"both": user("both", ["kms:Encrypt", "kms:Decrypt"]), "encrypts": user("encrypts", ["kms:Encrypt"])}
# From now on, each request must be signed by a user who may make it.
moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
print(json.dumps({"endpoint": endpoint, "keys": names, "users": users}), flush=True)
sys.stdin.read()
