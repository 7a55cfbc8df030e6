# Who signs bundles, and whom a box believes: a development PKI of this build folder, made on first use, unless these are set.
KVS_EDGE_PKI ?= "${TOPDIR}/development-pki"
KVS_EDGE_KEYRING ?= "${KVS_EDGE_PKI}/ca.cert.pem"
RAUC_CERT_FILE ?= "${KVS_EDGE_PKI}/signer.cert.pem"
RAUC_KEY_FILE ?= "${KVS_EDGE_PKI}/signer.key.pem"

DEPENDS:append = " openssl-native"

kvs_edge_pki() {
    case "${KVS_EDGE_KEYRING} ${RAUC_CERT_FILE} ${RAUC_KEY_FILE}" in
        *"${KVS_EDGE_PKI}/"*) ${KVS_EDGE_LAYER}/scripts/make-development-pki ${KVS_EDGE_PKI} ;;
    esac
}
kvs_edge_pki[doc] = "Makes the development PKI where there is none"
