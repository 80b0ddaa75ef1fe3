#include "serve/http_tls.h"

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

namespace tailor {
namespace {

namespace fs = std::filesystem;
namespace ssl = boost::asio::ssl;

constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";  // of TLS 1.2; those of 1.3 are all good

Error bad_file(const char* what, const fs::path& file, std::string why, std::string hint) {
  return {ErrorCode::kInvalidArgument, fmt::format("{} {}: {}", what, file.string(), why), std::move(hint)};
}

Status check_readable(const char* what, const fs::path& file) {
  struct stat status {};
  if (stat(file.c_str(), &status) != 0) {
    return Error{errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                 fmt::format("{} {}: {}", what, file.string(), std::strerror(errno)), "give the path of a PEM file"};
  }
  if (!S_ISREG(status.st_mode)) return bad_file(what, file, "is not a file", "give the path of a PEM file");
  return {};
}

Status check_secret(const fs::path& file) {
  struct stat status {};
  if (stat(file.c_str(), &status) != 0 || (status.st_mode & 077) == 0) return {};
  return bad_file("TLS key", file,
                  fmt::format("others than its owner may read it (mode {:03o})", status.st_mode & 0777U),
                  fmt::format("run: chmod 600 {}", file.string()));
}

std::string reason(const boost::system::error_code& error) {
  return error.message();
}

int choose_protocol(SSL*, const unsigned char** out, unsigned char* size, const unsigned char* offered, unsigned bytes,
                    void*) {
  static constexpr unsigned char kOurs[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  const int found = SSL_select_next_proto(&chosen, size, kOurs, sizeof(kOurs) - 1, offered, bytes);
  if (found != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

Status ask_clients(ssl::context& context, const fs::path& file) {
  TAILOR_CHECK(check_readable("TLS client CA", file));
  boost::system::error_code error;
  context.load_verify_file(file.string(), error);
  STACK_OF(X509_NAME)* names = error ? nullptr : SSL_load_client_CA_file(file.c_str());
  if (names == nullptr) {
    return bad_file("TLS client CA", file, error ? reason(error) : "holds no certificate",
                    "the file must hold PEM certificates");
  }
  SSL_CTX_set_client_CA_list(context.native_handle(), names);  // takes them over
  context.set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  // A resumed session would otherwise be refused, since it is not known for whom it was verified.
  static constexpr unsigned char kName[] = "tailor";
  SSL_CTX_set_session_id_context(context.native_handle(), kName, sizeof(kName) - 1);
  return {};
}

}  // namespace

Result<std::shared_ptr<ssl::context>> load_tls(const TlsFiles& files) {
  TAILOR_CHECK(check_readable("TLS certificate", files.certificate));
  TAILOR_CHECK(check_readable("TLS key", files.key));
  TAILOR_CHECK(check_secret(files.key));
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);          // an idle connection keeps 34 KiB less
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);  // clients keep tickets instead
  SSL_CTX_set_cipher_list(native, kCiphers);
  SSL_CTX_set_alpn_select_cb(native, choose_protocol, nullptr);

  boost::system::error_code error;
  // OpenSSL would otherwise ask at the terminal.
  context->set_password_callback([](std::size_t, ssl::context::password_purpose) { return std::string(); }, error);
  context->use_private_key_file(files.key.string(), ssl::context::pem, error);
  if (error) {
    ERR_clear_error();
    return bad_file(
        "TLS key", files.key, reason(error),
        "the file must hold one PEM private key without a password, the one of " + files.certificate.string());
  }
  context->use_certificate_chain_file(files.certificate.string(), error);
  if (error) {
    return bad_file("TLS certificate", files.certificate, reason(error),
                    "the file must hold PEM certificates, the server's own first");
  }
  if (SSL_CTX_check_private_key(native) != 1) {
    ERR_clear_error();
    return bad_file("TLS key", files.key, "is not the key of " + files.certificate.string(),
                    "give the certificate and the key that were made together");
  }
  if (!files.client_ca.empty()) TAILOR_CHECK(ask_clients(*context, files.client_ca));
  return context;
}

}  // namespace tailor
