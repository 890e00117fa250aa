"""What the evaluation sets of each task are, whoever draws them and on whatever machine."""

#: Task, its version and split to `evaluation.digest` of the first 1000 problems, with default settings.
DIGESTS: dict[str, dict[int, dict[str, str]]] = {
    "fuzzy_logic": {
        1: {
            "test": "00935fff72e03415bb42199f65987a10cc71d3e34ae7a0f3dba162a002c5a8c0",
            "heldout": "72316da23efa728c738224c2384b630668608d486a521653334850ae6b578404",
            "unknown_terms": "d1d63e53438c477cdd4b157f88f843cbfff5a8f550db6658504d95913e882161",
        },
    },
    "sraven": {
        1: {
            "test": "227f611604690b06de9faa357cad85ec3b38f8fb4cd0c0cbb9247455dbde6557",
            "heldout": "77b0b70188574acc4028c59cd17b9af5aeb23a3c79f179033a712887715f537b",
        },
    },
    "language": {
        1: {
            "validation": "6c453f2bb6b9461b9a1041dd763436236aac2a8754a84ab645461a41bd747a5b",
            "test": "2540d5d5707a13294d1811b27f77d6b1d762b54f5bad2198861971b02e1fad2d",
            "heldout": "037654d4c821fac42236ff179e56e83cc799ee29d54d736f1d4c12fe0dd5e6c3",
        },
    },
    "series": {
        1: {
            "test": "97ac2da02ad8a3bdcfaa328400cc0d58b0c5bf15460e3b2c5665e6d6b38cb311",
        },
    },
    "mqar": {
        1: {
            "test": "20bfce4826fe2b6b66adf32ac31334beac23d984e8d469374a62be49b5c175f0",
        },
    },
}
