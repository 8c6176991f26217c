module github.com/openfaas/templates-sdk

go 1.18
