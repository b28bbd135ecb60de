"""A server for bundles over HTTP, and its client. Needs the packages of the extra [serve]; the client needs none.

settings    limits, and who may ask
errors      an error with its HTTP status
worker      one opened bundle: two threads that keep every inference slot busy
models      what is served under which name: admission, reload, rollback
body        reading requests: size, time, multipart, images
answers     a result in the formats of /v1
tensors     requests and answers of the Open Inference Protocol
v1, v2      the two APIs
guard       who may ask, request ids, draining
metrics     for Prometheus
app         all of it as an ASGI application
server      sockets, signals, timeouts
client      edgeseg.Client
page/       the web page
"""
