#pragma once
/// Transports over Asio sockets. Included by few files: Asio's headers are slow to compile.

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "serve/http_transport.h"

namespace tailor {

using StreamSocket = boost::asio::generic::stream_protocol::socket;

std::unique_ptr<HttpTransport> make_plain_transport(StreamSocket socket);
std::unique_ptr<HttpTransport> make_tls_transport(StreamSocket socket,
                                                  std::shared_ptr<boost::asio::ssl::context> context);

}  // namespace tailor
