#pragma once
/// TLS settings out of files.

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "core/result.h"
#include "serve/http_options.h"

namespace tailor {

/// TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers, no renegotiation. Errors name the file: absent, not
/// PEM, a key that is encrypted, readable by others than its owner, or of another certificate.
Result<std::shared_ptr<boost::asio::ssl::context>> load_tls(const TlsFiles& files);

}  // namespace tailor
