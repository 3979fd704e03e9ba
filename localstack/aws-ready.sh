#!/bin/sh
# Run by LocalStack's container at each start. The key protects nothing, and is no secret: with these tags
# it comes back the same, so that what it wrapped opens after a restart.
set -eu
key=6b6d7362-7269-4467-a565-6177736b6579
awslocal kms create-key --region eu-west-1 --description "for trying kmsbridge" --tags \
  "TagKey=_custom_id_,TagValue=$key" \
  "TagKey=_custom_key_material_,TagValue=Zm9yIHRyeWluZyBrbXNicmlkZ2U6IG5vIHNlY3JldCE="
awslocal kms create-alias --region eu-west-1 --alias-name alias/kmsbridge --target-key-id "$key"
